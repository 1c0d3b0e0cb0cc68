// The event log: the newest events as they come, and back in time as far as it goes.

import * as api from './api.js';
import { badge, button, el, field, linked, quote, select, show, when, worded } from './dom.js';
import { count, number } from './format.js';
import { lookFor } from './look.js';

export const KINDS = [
	'accepted',
	'delivered',
	'deferred',
	'bounced',
	'expired',
	'removed',
	'refused',
	'suppressed',
	'throttled',
	'blocked',
	'paused',
	'resumed',
	'returned',
	'complained',
	'unsubscribed',
	'feedback',
	'alert',
];
/** So many rows are kept on the page; older ones are a press away. */
const ROWS_MAX = 300;
/** What comes within this time is shown together, so that a busy relay can be read. */
const DRAW_MS = 1000;

/** One event as a row. What a receiver said stands in quotation marks. */
export function eventRow(event, { message = true } = {}) {
	const about = event.recipient || (event.event === 'accepted' ? count(event.recipients ?? 1, 'recipient') : '');
	const place = [event.provider, event.source && event.source !== 'default' && `from ${event.source}`].filter(Boolean).join(' ');
	return el(
		'li',
		{ class: 'event', key: `s${event.seq}` },
		el('span', { class: 'moment' }, when(event.time, { plain: true })),
		el('span', {}, badge(event.event)),
		el(
			'div',
			{ class: 'what' },
			el(
				'div',
				{ class: 'who' },
				message && event.id && el('a', { href: `#/message/${event.id}` }, event.id),
				event.sender !== null && event.id && el('span', { class: 'address' }, `${event.sender || '<>'} → ${about}`),
				!event.id && about && el('span', { class: 'address' }, about),
				place && el('span', { class: 'tag' }, place),
				event.class && event.class !== 'delivered' && el('span', { class: 'tag' }, event.class),
			),
			event.text && el('div', {}, worded(event.text)),
			event.reply && el('div', {}, quote(event.reply)),
			event.remedy && event.event === 'alert' && el('div', { class: 'hint' }, linked(event.remedy)),
		),
	);
}

function matches(event, query) {
	if (query.kind && !query.kind.split(',').includes(event.event)) return false;
	const same = (wanted, found) => {
		if (!wanted) return true;
		if (found === null || found === undefined) return false;
		const low = found.toLowerCase();
		return wanted.startsWith('@')
			? low.endsWith(wanted.toLowerCase())
			: wanted === '<>'
				? found === ''
				: low === wanted.toLowerCase();
	};
	return (
		['provider', 'recipient', 'sender', 'id', 'user'].every((key) => same(query[key], event[key])) &&
		(!query.message_id || (event.message_id || '').replace(/^<|>$/g, '') === query.message_id.replace(/^<|>$/g, ''))
	);
}

/** A list of events that grows at both ends. */
export function eventList(
	query,
	{ label = 'Events', most = ROWS_MAX, message = true, older = true, empty = 'No such event.' } = {},
) {
	const node = el('div', {});
	let events = [];
	let next = null;
	let ready = false;
	let wrong = null;
	let missed = 0;
	let alive = true;
	let drawing = 0;
	let still = false;
	let paged = false;

	// Rows do not move while somebody is at them.
	node.addEventListener('pointerenter', (event) => {
		still = event.pointerType === 'mouse';
	});
	node.addEventListener('pointerleave', () => {
		still = false;
	});
	const soon = () => {
		if (!drawing) drawing = setTimeout(turn, DRAW_MS);
	};
	function turn() {
		drawing = 0;
		if (!alive) return;
		if (still || node.contains(document.activeElement)) soon();
		else draw();
	}

	function draw() {
		show(
			node,
			wrong &&
				el(
					'p',
					{ class: 'wrong' },
					wrong,
					' ',
					button('Try again', () => load(null)),
				),
			missed > 0 &&
				el(
					'p',
					{ class: 'hint' },
					`${number(missed)} newer events are not shown. `,
					button('Read them', () => load(null)),
				),
			events.length
				? el(
						'ol',
						{ class: 'events', 'aria-label': label },
						events.map((event) => eventRow(event, { message })),
					)
				: ready && !wrong && el('p', { class: 'empty' }, empty),
			!ready && !wrong && el('p', { class: 'empty' }, 'Being read …'),
			older &&
				next &&
				el(
					'div',
					{ class: 'actions' },
					button('Older events', () => load(next)),
				),
		);
	}

	async function load(before) {
		try {
			const found = await api.get('/events', { ...query, limit: Math.min(100, most), before });
			if (!alive) return;
			const known = new Set(events.map((event) => event.seq));
			events = before ? [...events, ...found.items.filter((event) => !known.has(event.seq))] : found.items;
			next = found.next;
			ready = true;
			wrong = null;
			paged = Boolean(before);
			if (!before) missed = 0;
		} catch (error) {
			if (!alive) return;
			wrong = `The events could not be read: ${error.message}`;
		}
		draw();
	}

	draw();
	load(null);
	return {
		node,
		again: () => load(null),
		log(event) {
			if (!ready || !matches(event, query) || events.some((known) => known.seq === event.seq)) return;
			// Whoever reads back in time is not moved; a list that has become long begins again, so that it has no gap.
			if (paged) missed += 1;
			else if (older && events.length >= most) load(null);
			else events = [event, ...events].slice(0, most);
			soon();
		},
		skipped(n) {
			missed += n;
			soon();
		},
		end() {
			alive = false;
			clearTimeout(drawing);
		},
	};
}

export function eventsView(context, query) {
	const head = el('div', {});
	const place = el('div', {});
	const node = el('div', {}, el('h1', { tabindex: '-1' }, 'Events'), head, place);
	let list = null;
	let following = true;
	let waiting = 0;

	const asked = () => {
		const { q, ...rest } = query;
		const found = lookFor(q || '');
		return { kind: rest.kind, provider: rest.provider, ...found.events };
	};

	function go(change) {
		context.go('/events', { ...query, ...change });
	}

	function drawHead() {
		const kinds = (query.kind || '').split(',').filter(Boolean);
		const kind = select({ name: 'kind', value: query.kind || '', onchange: (event) => go({ kind: event.target.value }) }, [
			['', 'all events'],
			['delivered,bounced,expired,removed', 'ends of recipients'],
			['deferred,bounced,expired', 'trouble'],
			['throttled,blocked,paused,resumed', 'changes of lanes'],
			['returned,complained,unsubscribed,feedback', 'answers to mail'],
			...KINDS.map((k) => [k, k]),
			...(kinds.length > 1 &&
			![
				'delivered,bounced,expired,removed',
				'deferred,bounced,expired',
				'throttled,blocked,paused,resumed',
				'returned,complained,unsubscribed,feedback',
			].includes(query.kind)
				? [[query.kind, kinds.join(', ')]]
				: []),
		]);
		const box = el('input', { type: 'search', name: 'q', value: query.q || '', autocomplete: 'off', spellcheck: 'false' });
		show(
			head,
			el(
				'form',
				{
					class: 'filters',
					role: 'search',
					'aria-label': 'Events',
					onsubmit: (event) => {
						event.preventDefault();
						go({ q: event.target.elements.q.value.trim() });
					},
				},
				field('Find', box, 'An address (recipient), from:address, @domain, queue ID, <Message-ID> or user:name'),
				field('Which', kind),
				el(
					'div',
					{ class: 'buttons' },
					el('button', { type: 'submit', class: 'main' }, 'Find'),
					el(
						'button',
						{
							type: 'button',
							'aria-pressed': String(following),
							onclick: () => {
								following = !following;
								if (following) {
									waiting = 0;
									list.again();
								}
								drawHead();
							},
						},
						following ? 'Live' : 'Follow live',
					),
				),
			),
			!following &&
				el(
					'p',
					{ class: 'hint' },
					waiting > 0 ? `${number(waiting)} newer events have come.` : 'Standing still: newer events are not shown.',
				),
		);
	}

	function start() {
		if (list) list.end();
		list = eventList(asked());
		place.replaceChildren(list.node);
		drawHead();
	}
	start();
	return {
		node,
		title: 'Events',
		update(next) {
			query = next;
			start();
		},
		log(event) {
			if (following) list.log(event);
			else {
				waiting += 1;
				if (waiting % 10 === 1) drawHead();
			}
		},
		skipped(n) {
			if (following) list.skipped(n);
		},
		back() {
			list.again();
		},
		end() {
			list.end();
		},
	};
}
