// The first page: is my mail going out, and if not, why.

import { answer, byProvider, isEverything } from './answer.js';
import { charts } from './charts.js';
import { eventList } from './events.js';
import { bytes, count, local, now, number } from './format.js';
import { badge, button, el, icon, linked, show, since, when, worded } from './dom.js';
import { pauses, providerCards, providerHref } from './lanes.js';
import * as orders from './orders.js';

const ICONS = { good: 'ok', warn: 'slow', bad: 'stop', calm: 'idle' };

const fact = (value, name, extra) =>
	el('li', {}, el('strong', {}, value), el('span', {}, name), extra && el('span', { class: 'hint' }, extra));

function troubles(status) {
	const { alerts, relay } = status;
	if (alerts.length === 0 && relay.problems.length === 0) return null;
	return el(
		'section',
		{ class: 'alerts', 'aria-labelledby': 'alerts' },
		el('h2', { id: 'alerts' }, 'A person should look'),
		el(
			'ul',
			{},
			relay.problems.map((problem) =>
				el('li', { key: `p${problem}` }, badge('alert', 'problem'), el('div', {}, linked(local(problem)))),
			),
			alerts.map((alert) =>
				el(
					'li',
					{ key: `a${alert.key}` },
					badge('alert'),
					el(
						'div',
						{},
						el('div', {}, worded(alert.text)),
						alert.remedy && el('div', { class: 'hint' }, linked(alert.remedy)),
						alert.since && el('div', { class: 'hint' }, 'since ', when(alert.since)),
					),
				),
			),
		),
	);
}

export function overview(context) {
	const top = el('div', {});
	const providers = el('div', {});
	let worst = null;
	const drawn = charts({ worst: () => worst });
	const list = eventList({}, { label: 'Newest events', most: 12, older: false, empty: 'Nothing has happened yet.' });
	const node = el(
		'div',
		{},
		el('h1', { tabindex: '-1', class: 'sr' }, 'Overview'),
		top,
		providers,
		drawn.node,
		el(
			'section',
			{ 'aria-labelledby': 'newest' },
			el('div', { class: 'head' }, el('h2', { id: 'newest' }, 'Newest events'), el('a', { href: '#/events' }, 'All events')),
			list.node,
		),
	);

	function draw() {
		const status = context.status();
		if (!status) {
			show(
				top,
				el(
					'section',
					{ class: 'answer calm' },
					el('p', { class: 'question' }, 'Is my mail going out?'),
					el('p', { class: 'sentence' }, icon('idle'), el('strong', {}, 'Being asked …')),
				),
			);
			return;
		}
		const { relay } = status;
		const gone = context.gone();
		const said = gone
			? {
					level: 'bad',
					word: 'Not known',
					text: 'The relay does not answer this page. What stands below is how it was then.',
					notes: [],
				}
			: answer(status, now());
		const other = said.provider || (byProvider(status.lanes)[0] || {}).name;
		if (other !== worst) {
			worst = other;
			drawn.again();
		}
		const stopped = status.lanes.some(isEverything);
		show(
			top,
			el(
				'section',
				{ class: `answer ${said.level}`, 'aria-labelledby': 'question' },
				el('h2', { class: 'question', id: 'question' }, 'Is my mail going out?'),
				el(
					'p',
					{ class: 'sentence' },
					icon(ICONS[said.level]),
					el('strong', {}, `${said.word}.`),
					' ',
					said.text,
					said.provider && [' ', el('a', { href: providerHref(said.provider) }, `More about ${said.provider}`)],
				),
				said.notes.length > 0 && el('p', { class: 'notes' }, said.notes.join(' ')),
				el(
					'div',
					{ class: 'buttons' },
					button('Pause one domain …', () => orders.pauseDomain(context.refresh)),
					button('Send a test message …', () => orders.sendTest(context.go)),
					stopped
						? button('Resume all mail …', () => orders.resume('*', context.refresh), { class: 'main' })
						: button('Pause all mail …', () => orders.pause('*', context.refresh)),
					relay.held > 0 && el('a', { class: 'button', href: '#/queue?state=held' }, `See the ${number(relay.held)} held`),
				),
			),
			el(
				'ul',
				{ class: 'numbers', 'aria-label': 'Numbers' },
				fact(number(relay.messages), relay.messages === 1 ? 'message in the queue' : 'messages in the queue'),
				fact(number(relay.waiting), 'deliveries waiting'),
				fact(number(relay.active), 'being tried now'),
				fact(number(relay.held), 'held by hand'),
				fact(relay.oldest ? since(relay.oldest) : '–', 'the oldest came'),
				fact(bytes(relay.disk_free_bytes), 'free disk', `mail is taken down to ${bytes(relay.disk_min_bytes)}`),
				fact(number(relay.clients), `of ${count(relay.clients_allowed, 'client connection')}`),
			),
			troubles(status),
		);
		show(
			providers,
			el(
				'section',
				{ 'aria-labelledby': 'providers' },
				el('h2', { id: 'providers' }, 'Providers'),
				pauses(status, context.refresh),
				providerCards(status, context.refresh, draw),
			),
		);
	}

	draw();
	return {
		node,
		title: 'Overview',
		update() {},
		status: draw,
		log: (event) => list.log(event),
		skipped: (n) => list.skipped(n),
		back() {
			list.again();
		},
		end() {
			drawn.end();
			list.end();
		},
	};
}
