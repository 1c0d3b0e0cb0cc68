// The queue: found, filtered, read page by page, and acted upon.
//
// Rows may vanish at any time: an anchor stays valid, an order counts anew what is there, and what was chosen and
// has left is simply not counted any more.

import * as api from './api.js';
import { bytes, count, number, span } from './format.js';
import { announce, badge, button, confirm, el, field, select, show, since, toast, when, worded } from './dom.js';
import { lookFor } from './look.js';

const PAGE = 50;
/** A rare filter gives pages with nothing on them: so long is searched before somebody is asked. */
const SEARCH_MS = 20000;
/** A million messages take their time. */
const COUNTING_MS = 120000;
const ACTING_MS = 600000;

const ORDERS = {
	flush: ['Flush', 'are tried as soon as their lane allows it. No pause is lifted by this', false],
	hold: ['Hold', 'are not tried until somebody releases them', false],
	release: ['Release', 'may be tried again', false],
	reroute: ['Reroute', 'go to another host from now on, whatever their domain says. What is being tried now is left alone', false],
	bounce: ['Bounce', 'are given up, and their senders get a report. This cannot be undone', true],
	remove: ['Remove', 'are given up without a word to anybody. This cannot be undone', true],
};

const PAST = {
	flush: 'flushed',
	hold: 'held',
	release: 'released',
	reroute: 'rerouted',
	bounce: 'bounced',
	remove: 'removed',
};

const nextHop = () =>
	field(
		'Next hop',
		el('input', { name: 'to', required: true, autocomplete: 'off', spellcheck: 'false', placeholder: 'smart.example.com:25' }),
		'HOST:PORT. Where a [[route]] of the configuration has this host, its login and TLS are used',
	);

/** Shows how many are meant, and does it when that is confirmed. `chosen`: the filter of the API, or `ids`. */
export async function order(name, chosen, words, after) {
	const [label, effect, danger] = ORDERS[name];
	const all = Object.keys(chosen).length === 0;
	const body = { ...chosen, ...(all ? { all: true } : {}) };
	let meant;
	const told = el('div', {}, el('p', { role: 'status' }, 'Being counted …'));
	const { node, go } = confirm(
		`${label}: ${words}`,
		told,
		label,
		async (form) => {
			const to = form.elements.to ? { to: form.elements.to.value.trim() } : {};
			const did = await api.post(`/queue/${name}`, { ...body, ...to, dry_run: false }, ACTING_MS);
			const past = PAST[name];
			const left = did.messages < meant.messages ? ` ${number(meant.messages - did.messages)} had left meanwhile.` : '';
			toast(`${count(did.messages, 'message')} ${past}.${left} ${did.note || ''}`.trim());
			after();
		},
		{ danger },
	);
	go.disabled = true;
	try {
		meant = await api.post(`/queue/${name}`, { ...body, dry_run: true }, COUNTING_MS);
	} catch (error) {
		told.replaceChildren(el('p', { class: 'wrong', role: 'alert' }, error.message));
		return;
	}
	if (meant.messages === 0) {
		show(
			told,
			el('p', { role: 'status' }, `Nothing to ${name}: it has left the queue, or stands like that already.`),
			meant.note && el('p', { class: 'hint' }, meant.note),
		);
		return;
	}
	const messages = count(meant.messages, 'message');
	const one = (text) =>
		text
			.replace(/^are /, 'is ')
			.replace('their senders get', 'its sender gets')
			.replace('releases them', 'releases it')
			.replace('their lane', 'its lane');
	node.querySelector('h2').textContent = `${label} ${messages}?`;
	go.textContent = `${label} ${messages}`;
	go.disabled = false;
	show(
		told,
		el(
			'p',
			{ role: 'status' },
			el('strong', {}, `${messages} for ${count(meant.recipients, 'recipient')}`),
			` (${words}) ${meant.messages === 1 ? one(effect) : effect}.`,
		),
		meant.note && el('p', { class: 'hint' }, meant.note),
		name === 'reroute' && nextHop(),
		danger &&
			all &&
			el(
				'div',
				{ class: 'check' },
				el('input', { type: 'checkbox', id: 'sure', required: true }),
				el('label', { for: 'sure' }, 'I mean everything that is in the queue'),
			),
	);
}

export function orderButtons(chosen, words, after, disabled = false) {
	return Object.keys(ORDERS).map((name) =>
		button(`${ORDERS[name][0]} …`, () => order(name, chosen(), words(), after), {
			disabled,
			class: ORDERS[name][2] ? 'risky' : null,
		}),
	);
}

function recipients(row) {
	const [first, ...more] = row.recipients;
	return [
		el('span', { class: 'address' }, first || '–'),
		more.length > 0 && el('span', { class: 'tag', title: row.recipients.join('\n') }, `and ${number(more.length)} more`),
	];
}

/** When it is tried next, in words. */
export function nextWords(row) {
	if (row.state === 'held') return 'held by hand';
	if (row.state === 'active') return 'now';
	if (row.stopped && !row.next_attempt) return `lane ${row.stopped}: until somebody resumes it`;
	return row.next_attempt ? when(row.next_attempt) : 'due now';
}

export function queueView(context, query) {
	const head = el('div', {});
	const bar = el('div', {});
	const place = el('div', {});
	const node = el('div', {}, el('h1', { tabindex: '-1' }, 'Queue'), head, bar, place);
	let rows = [];
	let next = null;
	let loading = false;
	let wrong = null;
	let read = null;
	let searched = null;
	let everything = false;
	let asked = 0;
	const chosen = new Set();

	const look = () => lookFor(query.q || '');
	const filter = () => {
		const found = look().filter;
		const picked = Object.fromEntries(['provider', 'state'].filter((key) => query[key]).map((key) => [key, query[key]]));
		return { ...found, ...picked };
	};
	const go = (change, focus) => context.go('/queue', { ...query, after: '', ...change }, focus);
	const describe = () => {
		const parts = Object.entries(filter()).map(([key, value]) => `${key.replace('_', ' ')} ${value}`);
		return parts.length ? parts.join(', ') : 'the whole queue';
	};

	async function load() {
		const mine = (asked += 1);
		const { id, wrong: not } = look();
		if (id) {
			context.replace(`/message/${id}`);
			return;
		}
		wrong = not;
		loading = true;
		draw();
		if (not) {
			rows = [];
			next = null;
			loading = false;
			draw();
			return;
		}
		let after = query.after || null;
		searched = null;
		const begun = Date.now();
		try {
			for (;;) {
				const page = await api.get('/queue', { ...filter(), limit: PAGE, after });
				if (mine !== asked) return;
				rows = page.items;
				next = page.next;
				if (rows.length > 0 || !next || Date.now() - begun >= SEARCH_MS) break;
				after = next;
				searched = Date.now() - begun;
				draw();
			}
			read = Date.now();
			const here = new Set(rows.map((row) => row.id));
			for (const id of [...chosen]) if (!here.has(id)) chosen.delete(id);
			announce(rows.length ? `${count(rows.length, 'row')}${next ? ', more follow' : ''}.` : 'Nothing found.');
		} catch (error) {
			if (mine !== asked) return;
			wrong = `The queue could not be read: ${error.message}`;
		}
		loading = false;
		draw();
	}

	const picked = () => (everything ? filter() : { ids: [...chosen] });
	const pickedWords = () => (everything ? describe() : count(chosen.size, 'chosen message'));
	const after = () => {
		chosen.clear();
		everything = false;
		load();
	};

	function drawHead() {
		const status = context.status();
		const providers = [
			...new Set([...(status ? status.lanes.map((lane) => lane.provider) : []), query.provider].filter((p) => p && p !== '*')),
		].sort();
		const box = el('input', { type: 'search', name: 'q', value: query.q || '', autocomplete: 'off', spellcheck: 'false' });
		show(
			head,
			el(
				'form',
				{
					class: 'filters',
					role: 'search',
					'aria-label': 'Queue',
					onsubmit: (event) => {
						event.preventDefault();
						go({ q: event.target.elements.q.value.trim() });
					},
				},
				field('Find', box, 'An address (recipient), from:address, @domain, queue ID, <Message-ID>, user:name, older:2h'),
				field(
					'Provider',
					select({ name: 'provider', value: query.provider || '', onchange: (event) => go({ provider: event.target.value }) }, [
						['', 'all'],
						...providers.map((p) => [p, p]),
					]),
				),
				field(
					'State',
					select({ name: 'state', value: query.state || '', onchange: (event) => go({ state: event.target.value }) }, [
						['', 'all'],
						['waiting', 'waiting'],
						['active', 'being tried'],
						['held', 'held'],
					]),
				),
				el('div', { class: 'buttons' }, el('button', { type: 'submit', class: 'main' }, 'Find'), button('Refresh', load)),
			),
		);
	}

	function drawBar() {
		const some = everything || chosen.size > 0;
		show(
			bar,
			el(
				'div',
				{ class: 'bulk', role: 'group', 'aria-label': 'Act on messages' },
				el(
					'div',
					{ class: 'check' },
					el('input', {
						type: 'checkbox',
						id: 'everything',
						checked: everything,
						onchange: (event) => {
							everything = event.target.checked;
							draw();
						},
					}),
					el('label', { for: 'everything' }, `All that is found (${describe()}), also on other pages`),
				),
				el(
					'div',
					{ class: 'buttons' },
					el('span', { class: 'amount' }, everything ? 'All that is found:' : `${number(chosen.size)} chosen:`),
					orderButtons(picked, pickedWords, after, !some),
				),
			),
		);
	}

	function row(record) {
		const id = `pick-${record.id}-${record.domain}`;
		return el(
			'tr',
			{ key: id },
			el(
				'td',
				{ class: 'pick' },
				el('input', {
					type: 'checkbox',
					id,
					'aria-label': `Choose ${record.id}`,
					checked: everything || chosen.has(record.id),
					disabled: everything,
					onchange: (event) => {
						if (event.target.checked) chosen.add(record.id);
						else chosen.delete(record.id);
						draw();
					},
				}),
			),
			el(
				'td',
				{ 'data-label': 'Message' },
				el('a', { href: `#/message/${record.id}`, class: 'id' }, record.id),
				el('div', { class: 'hint' }, bytes(record.size_bytes)),
			),
			el(
				'td',
				{ 'data-label': 'From, to', class: 'who' },
				el('div', { class: 'address' }, record.sender || '<> (report)'),
				el('div', {}, '→ ', recipients(record)),
			),
			el('td', { 'data-label': 'Provider' }, record.provider || record.domain),
			el(
				'td',
				{ 'data-label': 'State' },
				badge(record.state),
				record.stopped && el('span', { class: 'tag' }, `lane ${record.stopped}`),
			),
			el(
				'td',
				{ 'data-label': 'Came' },
				when(record.received, { plain: true }),
				el('div', { class: 'hint' }, since(record.received)),
			),
			el(
				'td',
				{ 'data-label': 'Next try' },
				nextWords(record),
				el('div', { class: 'hint' }, record.attempts ? `${count(record.attempts, 'try', 'tries')} so far` : 'not tried yet'),
			),
			el('td', { 'data-label': 'Why', class: 'reason' }, record.reason && el('div', { class: 'clamp' }, worded(record.reason))),
		);
	}

	function nothing() {
		const { plain } = look();
		return el(
			'div',
			{ class: 'empty' },
			el(
				'p',
				{},
				next
					? 'Nothing found so far: the queue is long, and the rest of it is not searched yet.'
					: Object.keys(filter()).length || query.after
						? 'Nothing in the queue fits.'
						: 'The queue is empty.',
			),
			plain &&
				el(
					'p',
					{},
					el('a', { href: context.href('/queue', { q: `from:${plain}` }) }, `Look for ${plain} as the sender`),
					' or ',
					el('a', { href: context.href('/events', { q: plain }) }, 'in the event log'),
					'.',
				),
		);
	}

	function draw() {
		drawHead();
		drawBar();
		const all = rows.length > 0 && rows.every((record) => chosen.has(record.id));
		const pick = el('input', {
			type: 'checkbox',
			'aria-label': 'Choose all rows of this page',
			checked: everything || all,
			indeterminate: !all && chosen.size > 0,
			disabled: everything,
			onchange: (event) => {
				for (const record of rows)
					if (event.target.checked) chosen.add(record.id);
					else chosen.delete(record.id);
				draw();
			},
		});
		show(
			place,
			wrong && el('p', { class: 'wrong', role: 'alert' }, wrong),
			el(
				'p',
				{ class: 'hint', 'aria-hidden': 'true' },
				loading
					? searched === null
						? 'Being read …'
						: `Being searched … (${span(searched / 1000)})`
					: read && ['As of ', since(read + context.ahead()), ', oldest first.'],
			),
			rows.length > 0
				? el(
						'div',
						{ class: 'scroll' },
						el(
							'table',
							{ class: 'rows' },
							el('caption', { class: 'sr' }, `Deliveries in the queue, ${describe()}`),
							el(
								'thead',
								{},
								el(
									'tr',
									{},
									el('th', { class: 'pick' }, pick, el('span', { class: 'narrow' }, ' All of this page')),
									['Message', 'From, to', 'Provider', 'State', 'Came', 'Next try', 'Why'].map((name) =>
										el('th', { scope: 'col' }, name),
									),
								),
							),
							el('tbody', {}, rows.map(row)),
						),
					)
				: !loading && !wrong && nothing(),
			el(
				'nav',
				{ class: 'actions', 'aria-label': 'Pages' },
				query.after && el('a', { class: 'button', href: context.href('/queue', { ...query, after: '' }) }, 'First page'),
				next &&
					el(
						'a',
						{ class: 'button', href: context.href('/queue', { ...query, after: next }) },
						rows.length ? 'Next page' : 'Go on searching',
					),
			),
		);
	}

	load();
	return {
		node,
		title: 'Queue',
		update(now) {
			const other = now.q !== query.q || now.provider !== query.provider || now.state !== query.state;
			const turned = now.after !== query.after;
			query = now;
			if (other) {
				chosen.clear();
				everything = false;
			}
			if (turned) {
				node.querySelector('h1').focus();
				window.scrollTo(0, 0);
			}
			load();
		},
		status() {
			drawHead();
		},
		end() {
			asked += 1;
		},
	};
}
