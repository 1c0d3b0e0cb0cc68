// Talking with the relay: one place that knows addresses, errors and the end of a session.

const BASE = '/api/v1';
const PATIENCE_MS = 20000;

export class ApiError extends Error {
	constructor(status, text) {
		super(text);
		this.status = status;
	}
}

let signedOut = () => {};
export const onSignedOut = (handler) => {
	signedOut = handler;
};

function address(path, query) {
	const wanted = Object.entries(query || {}).filter(([, value]) => value !== null && value !== undefined && value !== '');
	const text = new URLSearchParams(wanted).toString();
	return BASE + path + (text ? `?${text}` : '');
}

async function call(method, path, { query, body, signal, type = 'application/json', patience = PATIENCE_MS } = {}) {
	const limit = new AbortController();
	const timer = setTimeout(() => limit.abort(), patience);
	if (signal) signal.addEventListener('abort', () => limit.abort());
	const headers = {};
	if (method !== 'GET') headers['Content-Type'] = type;
	let answer;
	try {
		answer = await fetch(address(path, query), { method, headers, body, signal: limit.signal, cache: 'no-store' });
	} catch (error) {
		if (signal && signal.aborted) throw error;
		throw new ApiError(0, 'The relay does not answer: it may have stopped, or the way to it is interrupted.');
	} finally {
		clearTimeout(timer);
	}
	if (answer.ok) return answer;
	let text = `The relay answered ${answer.status}.`;
	try {
		const said = await answer.json();
		// Where no recipient was taken, the reply to the first says why.
		text = said.error || (said.recipients || []).map((one) => one.reply)[0] || text;
	} catch {
		/* not in JSON: the status has to do */
	}
	if (answer.status === 401 && path !== '/session') signedOut();
	throw new ApiError(answer.status, text);
}

const json = async (answer) => (answer.status === 204 ? null : answer.json());

export const get = async (path, query, signal) => json(await call('GET', path, { query, signal }));
export const text = async (path) => (await call('GET', path)).text();
export const post = async (path, body = {}, patience) => json(await call('POST', path, { body: JSON.stringify(body), patience }));
export const remove = async (path, body = {}) => json(await call('DELETE', path, { body: JSON.stringify(body) }));
export const href = (path) => BASE + path;

/** Sends a file and tells `told` each line of the answer as it comes. */
export async function upload(path, body, type, told, signal) {
	const answer = await call('POST', path, { body, type, signal, patience: 3600000 });
	const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = '';
	let ended = false;
	const line = (words) => {
		if (!words.trim()) return;
		const record = JSON.parse(words);
		if (record.error) throw new ApiError(answer.status, record.error);
		if (record.end) ended = true;
		told(record);
	};
	for (;;) {
		const { done, value } = await reader.read();
		if (done) break;
		const lines = (rest + value).split('\n');
		rest = lines.pop();
		lines.forEach(line);
	}
	line(rest);
	if (!ended)
		throw new ApiError(0, 'The answer ended early: not all of the list may be in. Import it again, which does no harm.');
}

const BACK_OFF_S = [1, 2, 4, 8, 15, 30];
/** A stream that says nothing for so long is asked for a sign of life. */
const QUIET_MS = 20000;

/** The relay's live stream. It is open only while somebody looks, and is opened again ever more slowly while nobody answers. */
export function live({ status, log, skipped, state }) {
	let source = null;
	let failures = 0;
	let timer = 0;
	let heard = 0;
	let wanted = false;

	const close = () => {
		clearTimeout(timer);
		if (source) source.close();
		source = null;
	};
	const fail = () => {
		close();
		if (!wanted) return;
		const wait = BACK_OFF_S[Math.min(failures, BACK_OFF_S.length - 1)] * 1000 * (0.9 + Math.random() * 0.2);
		failures += 1;
		state('gone', Date.now() + wait);
		timer = setTimeout(open, wait);
	};
	const data = (handler) => (event) => {
		heard = Date.now();
		handler(JSON.parse(event.data));
	};
	const watch = () => {
		const watched = source;
		timer = setTimeout(async () => {
			if (Date.now() - heard >= QUIET_MS) {
				try {
					data(status)({ data: JSON.stringify(await get('/status')) });
				} catch {
					if (watched === source) fail();
					return;
				}
			}
			if (watched === source) watch();
		}, QUIET_MS / 4);
	};
	const open = async () => {
		close();
		if (!wanted || document.hidden) return;
		state('opening');
		// The first answer comes by an ordinary request: only that tells an ended session from a relay that is gone.
		try {
			const first = await get('/status');
			if (!wanted) return;
			data(status)({ data: JSON.stringify(first) });
		} catch (error) {
			if (error.status !== 401) fail();
			return;
		}
		source = new EventSource(`${BASE}/live`);
		source.onopen = () => {
			failures = 0;
			heard = Date.now();
			state('live');
		};
		source.onerror = fail;
		source.addEventListener('status', data(status));
		source.addEventListener('log', data(log));
		source.addEventListener('skipped', data(skipped));
		watch();
	};

	document.addEventListener('visibilitychange', () => {
		if (!wanted) return;
		if (document.hidden) {
			close();
			state('resting');
		} else open();
	});
	window.addEventListener('pagehide', close);
	window.addEventListener('pageshow', (event) => {
		if (event.persisted && wanted) open();
	});
	window.addEventListener('online', () => {
		if (wanted && !source) open();
	});
	return {
		start() {
			wanted = true;
			failures = 0;
			open();
		},
		stop() {
			wanted = false;
			close();
		},
		now() {
			failures = 0;
			open();
		},
	};
}
