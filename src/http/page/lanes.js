// How lanes stand: connections against the ceiling, rate, what waits, why, and until when.

import { byProvider, isByHand, isEverything } from './answer.js';
import { count, number, perMinute } from './format.js';
import { badge, button, el, linked, since, svg, when, worded } from './dom.js';
import * as orders from './orders.js';

/** Connections as a bar: open, allowed now, and the ceiling over all lanes of the provider. */
function gauge(open, allowed, ceiling) {
	const most = Math.max(ceiling, allowed, open, 1);
	// What is small beside the ceiling is drawn by its root, so that 5 of 500 can be seen; the numbers stand beside it.
	const place = (n) => (Math.sqrt(n / most) * 100).toFixed(1);
	return el(
		'div',
		{ class: 'gauge' },
		svg(
			'svg',
			{ viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
			svg('rect', { class: 'rail', x: 0, y: 0, width: 100, height: 6 }),
			svg('rect', { class: 'allowed', x: 0, y: 0, width: place(allowed), height: 6 }),
			svg('rect', { class: 'open', x: 0, y: 0, width: place(open), height: 6 }),
		),
		el('span', {}, `${number(open)} open, ${number(allowed)} allowed, ceiling ${number(ceiling)}`),
	);
}

const term = (name, ...value) => el('div', {}, el('dt', {}, name), el('dd', {}, value));

export const laneBadge = (lane) => badge(lane.state, isByHand(lane) ? 'paused by hand' : lane.state);

function untilWords(lane) {
	if (!lane.until) return null;
	switch (lane.state) {
		case 'blocked':
		case 'paused':
			return ['Next probe', when(lane.until)];
		case 'probing':
			return ['Answer expected', when(lane.until)];
		default:
			return ['Until', when(lane.until)];
	}
}

export function laneFacts(lane) {
	const until = untilWords(lane);
	return [
		el(
			'dl',
			{ class: 'facts' },
			el(
				'div',
				{ class: 'wide' },
				el('dt', {}, 'Connections'),
				el('dd', {}, gauge(lane.connections, lane.connections_allowed, lane.ceiling)),
			),
			term('Rate now', typeof lane.rate === 'number' ? perMinute(lane.rate) : '–'),
			term('Learned limit', typeof lane.rate_allowed === 'number' ? perMinute(lane.rate_allowed) : 'none found'),
			lane.since && term('Nothing goes since', when(lane.since)),
			until && term(until[0], until[1]),
		),
		lane.reason && el('p', { class: 'why' }, el('span', { class: 'cap' }, 'Why: '), worded(lane.reason)),
		lane.cause && el('p', {}, el('span', { class: 'cap' }, 'Means: '), lane.cause),
		lane.remedy && el('p', {}, el('span', { class: 'cap' }, 'To do: '), linked(lane.remedy)),
	];
}

const HALTED = ['paused', 'blocked', 'probing', 'stopped'];

/** Always the same ones at the same places: a button that moved under the pointer would have another pressed. */
export function providerButtons(provider, lanes, after) {
	const halted = lanes.some((lane) => HALTED.includes(lane.state));
	const stopped = lanes.length > 0 && lanes.every((lane) => lane.state === 'stopped' || isByHand(lane));
	return [
		button('Resume …', () => orders.resume(provider, after), { 'aria-label': `Resume ${provider}`, disabled: !halted }),
		button('Pause …', () => orders.pause(provider, after), { 'aria-label': `Pause ${provider}`, disabled: stopped }),
		button('Report …', () => orders.report(provider), { 'aria-label': `Report for ${provider}` }),
	];
}

export function providerHref(name) {
	return `#/provider/${encodeURIComponent(name)}`;
}

/** One provider on the first page. */
function card({ name, lanes, waiting, worst }, after) {
	const several = lanes.length > 1;
	return el(
		'article',
		{ class: `card tone-${worst.state}`, key: name, 'aria-label': `Provider ${name}` },
		el(
			'header',
			{},
			el('h3', {}, el('a', { href: providerHref(name) }, name)),
			laneBadge(worst),
			el('span', { class: 'spread' }),
			el('a', { href: `#/queue?provider=${encodeURIComponent(name)}`, class: 'amount' }, `${number(waiting)} waiting`),
		),
		lanes[0].empty_at &&
			waiting > 0 &&
			el(
				'p',
				{ class: 'estimate' },
				`${perMinute(lanes[0].pace)} expected: empty about `,
				when(lanes[0].empty_at, { seconds: false }),
			),
		lanes.map((lane) =>
			el(
				'section',
				{ key: lane.source, class: 'lane' },
				several && el('h4', {}, `from ${lane.source} `, laneBadge(lane)),
				laneFacts(lane),
			),
		),
		el(
			'footer',
			{ class: 'actions' },
			providerButtons(name, lanes, after),
			el('a', { href: providerHref(name), class: 'more', 'aria-label': `Timeline and limits of ${name}` }, 'Timeline and limits'),
		),
	);
}

/** So many have a card; the others a row, when they are asked for. */
const CARDS_MAX = 12;
let all = false;

function rest(providers, again) {
	const toggle = button(all ? 'Fewer' : `Show ${count(providers.length, 'more provider')}`, () => {
		all = !all;
		again();
	});
	const heads = ['Provider', 'State', 'Waiting', 'Connections', 'Rate now', 'Until'];
	const row = ({ name, waiting, worst }) =>
		el(
			'tr',
			{ key: name },
			el('td', { 'data-label': heads[0] }, el('a', { href: providerHref(name) }, name)),
			el('td', { 'data-label': heads[1] }, laneBadge(worst)),
			el('td', { 'data-label': heads[2] }, number(waiting)),
			el('td', { 'data-label': heads[3] }, `${number(worst.connections)} of ${number(worst.connections_allowed)}`),
			el('td', { 'data-label': heads[4] }, typeof worst.rate === 'number' ? perMinute(worst.rate) : '–'),
			el('td', { 'data-label': heads[5] }, worst.until ? when(worst.until) : '–'),
		);
	return el(
		'div',
		{ class: 'rest' },
		el('div', { class: 'actions' }, toggle),
		all &&
			el(
				'div',
				{ class: 'scroll' },
				el(
					'table',
					{ class: 'rows' },
					el('caption', { class: 'sr' }, 'More providers'),
					el(
						'thead',
						{},
						el(
							'tr',
							{},
							heads.map((head) => el('th', { scope: 'col' }, head)),
						),
					),
					el('tbody', {}, providers.map(row)),
				),
			),
	);
}

/** Trouble first, then the order of magnitude of what waits: where the numbers themselves decided, cards would jump about. */
function rank({ lanes, stuck, waiting }) {
	const trouble = stuck ? 2 : lanes.some((lane) => HALTED.includes(lane.state)) ? 1 : 0;
	return trouble * 100 + Math.floor(Math.log10(waiting + 1));
}

export function providerCards(status, after, again) {
	const providers = byProvider(status.lanes);
	if (providers.length === 0) {
		return el(
			'p',
			{ class: 'empty' },
			status.relay.unrouted > 0
				? `${count(status.relay.unrouted, 'delivery has', 'deliveries have')} no route yet; their receivers are being looked up.`
				: 'No receiver yet: nothing was sent to anybody since the start.',
		);
	}
	// Who is in trouble or has most mail has a card.
	const first = providers.slice(0, CARDS_MAX).sort((a, b) => rank(b) - rank(a) || a.name.localeCompare(b.name));
	const others = providers.slice(CARDS_MAX);
	return [
		el(
			'div',
			{ class: 'cards' },
			first.map((provider) => card(provider, after)),
		),
		others.length > 0 && rest(others, again),
	];
}

/** Pauses by hand that stand beside the lanes: of everything, or of one domain. */
export function pauses(status, after) {
	const standing = status.lanes.filter((lane) => lane.domain !== null || isEverything(lane));
	if (standing.length === 0) return null;
	return el(
		'ul',
		{ class: 'pauses' },
		standing.map((lane) => {
			const what = lane.domain ?? 'all mail';
			return el(
				'li',
				{ key: what },
				badge('stopped', 'paused by hand'),
				el('strong', {}, what),
				lane.waiting > 0 && `${number(lane.waiting)} waiting`,
				lane.since && el('span', {}, 'since ', since(lane.since)),
				button('Resume …', () => (lane.domain ? orders.resumeDomain(lane.domain, after) : orders.resume('*', after)), {
					'aria-label': `Resume ${what}`,
				}),
			);
		}),
	);
}
