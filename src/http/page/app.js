// The page: who is logged in, which view is shown, and whether the relay answers.

import * as api from './api.js';
import { clock, now, setClock, span, zone } from './format.js';
import { announce, button, el, field, show, since, tick } from './dom.js';
import { eventsView } from './events.js';
import { messageView } from './message.js';
import { overview } from './overview.js';
import { providerView } from './provider.js';
import { queueView } from './queue.js';
import { suppressionView } from './suppression.js';

const VIEWS = [
	['/', 'Overview'],
	['/queue', 'Queue'],
	['/suppression', 'Suppression'],
	['/events', 'Events'],
];
const ROUTES = [
	[/^\/$/, overview],
	[/^\/queue$/, queueView],
	[/^\/message\/([^/]+)$/, messageView],
	[/^\/suppression$/, suppressionView],
	[/^\/events$/, eventsView],
	[/^\/provider\/([^/]+)$/, providerView],
];
/** Only whether somebody logged in here: it spares a first question that would be refused. The session itself is a cookie no script reads. */
const LOGGED_IN = 'weir-logged-in';

const place = (id) => document.getElementById(id);
const main = place('main');

let status = null;
let heard = null;
let connection = 'opening';
let retryAt = 0;
let view = null;
let shown = null;

const remembered = () => {
	try {
		return localStorage.getItem(LOGGED_IN) === '1';
	} catch {
		return true;
	}
};
const remember = (yes) => {
	try {
		if (yes) localStorage.setItem(LOGGED_IN, '1');
		else localStorage.removeItem(LOGGED_IN);
	} catch {
		/* private browsing: the session alone counts */
	}
};

function href(path, query = {}) {
	const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
	return `#${path}${words ? `?${words}` : ''}`;
}

const context = {
	status: () => status,
	gone: () => lost,
	href,
	go(path, query) {
		location.hash = href(path, query);
	},
	replace(path) {
		location.replace(`#${path}`);
	},
	ahead: () => now() - Date.now(),
	async refresh() {
		try {
			take(await api.get('/status'));
		} catch {
			/* the live stream tells of it */
		}
	},
};

function take(fresh) {
	status = fresh;
	heard = Date.now();
	setClock(fresh.time);
	frame();
	if (view && view.status) view.status(fresh);
}

const stream = api.live({
	status: take,
	log: (event) => view && view.log && view.log(event),
	skipped: ({ count }) => view && view.skipped && view.skipped(count),
	state(state, at) {
		const was = connection;
		connection = state;
		retryAt = at || 0;
		if (state === 'gone' && was !== 'gone' && was !== 'opening') announce('The relay does not answer any more.');
		if (state === 'live' && was !== 'live') {
			if (missed) {
				announce('The relay answers again.');
				if (view && view.back) view.back();
			}
			missed = false;
		}
		if (state === 'gone' || state === 'resting') missed = true;
		// While it is asked once more the words and the button stay where they are.
		lost = state === 'gone' || (lost && state === 'opening');
		frame();
		if (view && view.status && status) view.status(status);
	},
});
let missed = false;
let lost = false;

/** What stands around every view. */
function frame() {
	const path = route().path;
	show(
		place('nav'),
		el(
			'ul',
			{},
			VIEWS.map(([to, label]) => {
				const here =
					to === '/'
						? path === '/' || path.startsWith('/provider/')
						: path === to || (to === '/queue' && path.startsWith('/message/'));
				return el('li', {}, el('a', { href: `#${to}`, 'aria-current': path === to ? 'page' : here ? 'true' : null }, label));
			}),
		),
	);
	const words = { live: 'Live', opening: 'Connecting …', gone: 'No answer', resting: 'Resting' };
	show(place('live'), el('span', { class: `dot ${connection}`, 'aria-hidden': 'true' }), words[connection]);
	place('gone').hidden = !lost;
	if (lost) {
		show(
			place('gone'),
			el('strong', {}, 'The relay does not answer. '),
			heard
				? ['What you see is of ', clock(heard + context.ahead()), ' (', since(heard + context.ahead()), '). ']
				: 'Nothing could be read yet. ',
			'Is it running (',
			el('code', {}, 'systemctl status weir'),
			')? ',
			el('span', { id: 'again' }, again()),
			' ',
			button('Try now', () => stream.now()),
		);
	}
	show(
		place('foot'),
		status
			? [
					`weir ${status.relay.version} on ${status.relay.hostname || 'a host without a name'}, running since `,
					clock(Date.parse(status.relay.since)),
					' (',
					since(status.relay.since),
					`). Times are ${zone()}; hold the pointer over one for UTC.`,
				]
			: `Times are ${zone()}.`,
	);
}

const again = () =>
	connection === 'opening' ? 'Trying …' : `Next try in ${span(Math.max(0, (retryAt - Date.now()) / 1000))}.`;

function route() {
	const [path, words] = (location.hash.slice(1) || '/').split('?');
	return { path: path.startsWith('/') ? path : `/${path}`, query: Object.fromEntries(new URLSearchParams(words || '')) };
}

function part(text) {
	try {
		return decodeURIComponent(text);
	} catch {
		return text;
	}
}

function open() {
	if (!signedIn) return;
	const { path, query } = route();
	if (view && shown === path) {
		frame();
		view.update(query);
		return;
	}
	if (view) view.end();
	const first = shown === null;
	shown = path;
	const [pattern, make] = ROUTES.find(([p]) => p.test(path)) || [];
	view = make
		? make(context, query, ...pattern.exec(path).slice(1).map(part))
		: {
				node: el(
					'div',
					{},
					el('h1', { tabindex: '-1' }, 'No such page'),
					el('p', {}, el('a', { href: '#/' }, 'To the overview')),
				),
				title: 'No such page',
				update() {},
				end() {},
			};
	main.replaceChildren(view.node);
	document.title = `${view.title} – weir`;
	frame();
	if (!first) {
		view.node.querySelector('h1').focus();
		window.scrollTo(0, 0);
	}
}

// Logging in and out.

let signedIn = false;

function chrome(yes) {
	for (const id of ['nav', 'live', 'leave']) place(id).hidden = !yes;
}

function signIn(reason = null) {
	signedIn = false;
	remember(false);
	stream.stop();
	for (const dialog of document.querySelectorAll('dialog')) dialog.close();
	if (view) {
		view.end();
		view = null;
		shown = null;
	}
	status = null;
	heard = null;
	lost = false;
	chrome(false);
	place('gone').hidden = true;
	show(place('foot'));
	document.title = 'Log in – weir';
	const token = el('input', {
		type: 'password',
		name: 'token',
		id: 'token',
		autocomplete: 'current-password',
		required: true,
		spellcheck: 'false',
	});
	const wrong = el('p', { class: 'wrong', role: 'alert' }, reason);
	const go = el('button', { type: 'submit', class: 'main' }, 'Log in');
	main.replaceChildren(
		el(
			'form',
			{
				class: 'login card',
				onsubmit: async (event) => {
					event.preventDefault();
					go.disabled = true;
					wrong.textContent = '';
					try {
						await api.post('/session', { token: token.value.trim() });
						token.value = '';
						start();
					} catch (error) {
						wrong.textContent = error.message;
						go.disabled = false;
						token.focus();
					}
				},
			},
			el('h1', { tabindex: '-1' }, 'Log in'),
			el('input', { type: 'text', name: 'username', autocomplete: 'username', value: 'weir', hidden: true }),
			field('Token', token, 'It stands in the file http-token of the data folder, or in the one [http] token_file names.'),
			wrong,
			go,
		),
	);
	token.focus();
}

function start() {
	signedIn = true;
	remember(true);
	chrome(true);
	main.replaceChildren();
	open();
	stream.start();
}

api.onSignedOut(() => {
	if (signedIn) signIn('The session has ended: log in again.');
});

place('leave').onclick = async () => {
	try {
		await api.remove('/session');
	} catch {
		/* whoever leaves has left */
	}
	signIn();
};
place('skip').onclick = (event) => {
	event.preventDefault();
	main.focus();
};
window.addEventListener('hashchange', open);
window.addEventListener('error', (event) => {
	announce(`A fault of the page: ${event.message}`);
});
setInterval(() => {
	if (document.hidden) return;
	tick();
	const next = place('again');
	if (next) next.textContent = again();
	// Sentences hold relative times, too.
	if (view && view.status && status && shown === '/') view.status(status);
}, 1000);

if (remembered()) start();
else signIn();
