// What happened to a provider's lanes: each stop from the reply that began it to the message that ended it.

import { local, perMinute, replyLabel, span } from './format.js';
import { badge, el, linked, quote, since, when, worded } from './dom.js';

export const LANE_KINDS = 'throttled,blocked,paused,resumed';
/** A longer chain is shown with its beginning and its end. */
const CHAIN_MAX = 8;

const lane = (event) => `${event.provider || ''} ${event.source || ''}`;
const bare = (event) => (event.text || '').replace(/^[^\s:]+ from [^\s:]+: /, '');

/** A change of a lane in a few words. */
function step(event) {
	const text = bare(event);
	const at = Date.parse(event.time);
	const until = /(?:before|until) (\d{4}-\d\d-\d\dT[\d:.]+Z)/.exec(text);
	const long = until ? span((Date.parse(until[1]) - at) / 1000) : null;
	if (event.event === 'resumed') return event.reply ? 'probe accepted' : text || 'resumed';
	if (event.event === 'blocked') return long ? `blocked, asks again in ${long}` : 'blocked';
	if (event.event === 'paused') {
		if (/until an operator/.test(text)) return 'paused by hand';
		return long ? `paused ${long}` : text || 'paused';
	}
	const fewer = /^(at most [^(,]+?)(?: from now on)?(?: \(before: (\d[\d,]*)\))?(?:,|$)/.exec(text);
	if (fewer) return fewer[1] + (fewer[2] && !fewer[1].includes(` ${fewer[2]} `) ? ` (was ${fewer[2]})` : '');
	if (/^the next connection/.test(text) && long) return `the next connection waits ${long}`;
	if (/^no new connection/.test(text) && long) return `no new connection for ${long}`;
	return local(text) || 'slower';
}

/** Stops of each lane, the latest first: events in the order of time, up to the one that opened the lane again. */
function episodes(events) {
	const open = new Map();
	const all = [];
	for (const event of [...events].reverse()) {
		let episode = open.get(lane(event));
		if (!episode) {
			episode = { events: [], ended: null };
			open.set(lane(event), episode);
			all.push(episode);
		}
		episode.events.push(event);
		if (event.event === 'resumed') {
			episode.ended = event;
			open.delete(lane(event));
		}
	}
	return all.reverse();
}

/** The lane's rate some minutes after it was opened again, out of the history. */
function rateAfter(history, event) {
	const found = history && history.lanes.find((l) => l.provider === event.provider && l.source === event.source);
	if (!found) return null;
	const first = Math.ceil((Date.parse(event.time) - Date.parse(history.from)) / 1000 / history.step_seconds);
	const rates = found.rate.slice(Math.max(0, first), first + 6).filter((rate) => typeof rate === 'number' && rate > 0);
	return first >= 0 && rates.length ? rates[rates.length - 1] : null;
}

function chain(episode, current, history) {
	const parts = [];
	let said = null;
	for (const event of episode.events) {
		const label = event.event === 'resumed' ? null : replyLabel(event.reply);
		if (label && label !== said) parts.push(el('strong', {}, label));
		else if (label && event.event === 'paused') parts.push('refused again');
		if (label) said = label;
		parts.push(step(event));
	}
	const rate = episode.ended && rateAfter(history, episode.ended);
	if (rate) parts.push(perMinute(rate));
	else if (episode.ended) parts.push('open');
	else if (current && ['paused', 'blocked'].includes(current.state) && current.until)
		parts.push(el('span', {}, 'one message asks ', since(current.until)));
	const shown =
		parts.length <= CHAIN_MAX + 1
			? parts
			: [...parts.slice(0, 3), `… ${parts.length - CHAIN_MAX + 1} more …`, ...parts.slice(-(CHAIN_MAX - 4))];
	return el(
		'p',
		{ class: 'chain' },
		shown.map((part, at) => [at > 0 && el('span', { class: 'arrow' }, ' → '), part]),
	);
}

/** The timeline of a provider. `lanes`: how they stand now; `history`: for the rates that followed. */
export function timeline(events, lanes, history, several) {
	if (events.length === 0)
		return el('p', { class: 'empty' }, 'Nothing has slowed or stopped this provider as far back as the event log goes.');
	return el(
		'ol',
		{ class: 'timeline' },
		episodes(events).map((episode) => {
			const first = episode.events[0];
			const current = lanes.find((l) => l.source === first.source);
			const state = episode.ended ? 'resumed' : episode.events[episode.events.length - 1].event;
			const replies = episode.events.map((event) =>
				el(
					'li',
					{},
					when(event.time, { plain: true }),
					' ',
					badge(event.event),
					' ',
					worded(bare(event)),
					event.reply && el('div', {}, quote(event.reply)),
					event.remedy && event.event !== 'resumed' && el('div', { class: 'hint' }, linked(event.remedy)),
				),
			);
			return el(
				'li',
				{ key: `e${first.seq}` },
				el('div', { class: 'moment' }, when(first.time), several && first.source && ` from ${first.source}`),
				el(
					'div',
					{},
					badge(state, episode.ended ? 'open again' : state),
					chain(episode, current, history),
					el(
						'details',
						{},
						el('summary', {}, episode.events.length === 1 ? 'The reply' : `The replies (${episode.events.length})`),
						el('ol', { class: 'replies' }, replies),
					),
				),
			);
		}),
	);
}
