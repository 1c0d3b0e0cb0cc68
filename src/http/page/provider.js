// One provider: its lanes, its limits as they are set and learned, and its timeline.

import * as api from './api.js';
import { charts } from './charts.js';
import { count, number, perMinute, span } from './format.js';
import { button, el, show, when } from './dom.js';
import { isEverything, isLane } from './answer.js';
import { laneBadge, laneFacts, pauses, providerButtons } from './lanes.js';
import { LANE_KINDS, timeline } from './timeline.js';
import * as orders from './orders.js';

const EVENTS = 100;
const term = (name, ...value) => el('div', {}, el('dt', {}, name), el('dd', {}, value));

export function providerView(context, query, name) {
	const lanesPlace = el('div', {});
	const times = el('div', {});
	const limits = el('div', {});
	const drawn = charts({
		provider: name,
		told: (found) => {
			history = found;
			drawTimes();
		},
	});
	const node = el(
		'div',
		{},
		el('h1', { tabindex: '-1' }, 'Provider ', name),
		lanesPlace,
		el('section', { 'aria-labelledby': 'timeline' }, el('h2', { id: 'timeline' }, 'Timeline'), times),
		drawn.node,
		el('section', { 'aria-labelledby': 'limits' }, el('h2', { id: 'limits' }, 'Limits as they are set'), limits),
	);
	let history = null;
	let events = null;
	let next = null;
	let wrong = null;
	let alive = true;

	const lanes = () => (context.status() ? context.status().lanes.filter((lane) => lane.provider === name && isLane(lane)) : []);

	async function loadEvents(before) {
		try {
			const found = await api.get('/events', { kind: LANE_KINDS, provider: name, limit: EVENTS, before });
			if (!alive) return;
			events = before ? [...events, ...found.items] : found.items;
			next = found.next;
			wrong = null;
		} catch (error) {
			wrong = `The timeline could not be read: ${error.message}`;
		}
		if (alive) drawTimes();
	}

	async function loadLimits() {
		try {
			const { items } = await api.get('/providers');
			const found = items.find((item) => item.name === name);
			if (!alive) return;
			if (!found) {
				show(limits, el('p', { class: 'empty' }, 'This provider has no limits of its own.'));
				return;
			}
			const value = (n) => (typeof n === 'number' ? number(n) : 'not set');
			show(
				limits,
				el(
					'p',
					{ class: 'hint' },
					found.profile
						? 'weir ships a profile for this receiver; [[provider]] in the configuration changes it.'
						: 'A receiver without a profile of its own: the defaults hold.',
				),
				el(
					'dl',
					{ class: 'facts' },
					term('Ceiling of connections', value(found.ceiling)),
					term('Connections at first', value(found.initial_connections)),
					term('Messages on a connection', value(found.messages_per_connection)),
					term('Recipients of a transaction', value(found.recipients_per_message)),
					term('Highest rate', typeof found.max_rate_per_minute === 'number' ? perMinute(found.max_rate_per_minute) : 'not set'),
					term('Pause', span(found.pause_seconds)),
					term('Longest pause', span(found.pause_max_seconds)),
					term('First probe after a block', span(found.probe_block_seconds)),
				),
			);
		} catch (error) {
			if (alive) show(limits, el('p', { class: 'wrong' }, `The limits could not be read: ${error.message}`));
		}
	}

	function drawLanes() {
		const status = context.status();
		if (!status) return;
		const own = lanes();
		const sources = own.map((lane) => lane.source);
		show(
			lanesPlace,
			el(
				'div',
				{ class: 'buttons' },
				providerButtons(name, own, context.refresh),
				button('Forget learned limits …', () => orders.forget(name, sources, context.refresh)),
				button('Pause one domain …', () => orders.pauseDomain(context.refresh)),
			),
			pauses({ lanes: status.lanes.filter((lane) => lane.provider === name || isEverything(lane)) }, context.refresh),
			own.length === 0
				? el('p', { class: 'empty' }, 'Nothing was sent to this provider since the start, and nothing waits for it.')
				: [
						el(
							'p',
							{ class: 'sentence' },
							el(
								'a',
								{ href: `#/queue?provider=${encodeURIComponent(name)}` },
								count(Math.max(...own.map((lane) => lane.waiting)), 'delivery waits', 'deliveries wait'),
							),
							own[0].empty_at && own[0].waiting > 0
								? [`; ${perMinute(own[0].pace)} expected, empty about `, when(own[0].empty_at, { seconds: false }), '.']
								: '.',
						),
						el(
							'div',
							{ class: 'cards' },
							own.map((lane) =>
								el(
									'article',
									{ class: `card tone-${lane.state}`, key: lane.source, 'aria-label': `Lane from ${lane.source}` },
									el('header', {}, el('h2', {}, `from ${lane.source}`), laneBadge(lane)),
									laneFacts(lane),
								),
							),
						),
					],
		);
	}

	function drawTimes() {
		show(
			times,
			wrong &&
				el(
					'p',
					{ class: 'wrong' },
					wrong,
					' ',
					button('Try again', () => loadEvents(null)),
				),
			events
				? timeline(events, lanes(), history, new Set(events.map((event) => event.source)).size > 1)
				: !wrong && el('p', { class: 'empty' }, 'Being read …'),
			next &&
				el(
					'div',
					{ class: 'actions' },
					button('Further back', () => loadEvents(next)),
				),
		);
	}

	drawLanes();
	drawTimes();
	loadEvents(null);
	loadLimits();
	return {
		node,
		title: name,
		update() {},
		status() {
			drawLanes();
			drawTimes();
		},
		log(event) {
			if (
				!events ||
				event.provider !== name ||
				!LANE_KINDS.split(',').includes(event.event) ||
				events.some((known) => known.seq === event.seq)
			)
				return;
			events = [event, ...events];
			drawTimes();
		},
		back() {
			loadEvents(null);
		},
		end() {
			alive = false;
			drawn.end();
		},
	};
}
