// The plots of the relay and of one provider, out of its history.

import * as api from './api.js';
import { number, span } from './format.js';
import { el, show } from './dom.js';
import { classes, plot } from './plot.js';

export const SPANS = [
	['1h', '1 hour'],
	['24h', '24 hours'],
	['30d', '30 days'],
];
const AGAIN_MS = { '1h': 30000, '24h': 120000, '30d': 600000 };
let chosen = '1h';

const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);

/** The newest history, asked for as often as it changes. `worst`: whose lane stands among the plots of the relay; `told` hears of each history. */
export function charts({ provider = null, worst = () => null, told = () => {} }) {
	const made = new Map();
	const node = el('section', { class: 'charts', 'aria-labelledby': 'charts-title' });
	const choice = el('div', { class: 'choice', role: 'group', 'aria-label': 'Span of the plots' });
	const grid = el('div', { class: 'plots' });
	const wrong = el('p', { class: 'wrong' });
	node.append(el('div', { class: 'head' }, el('h2', { id: 'charts-title' }, 'Over time'), choice), wrong, grid);
	let timer = 0;
	let alive = true;
	let last = null;

	const buttons = () =>
		show(
			choice,
			SPANS.map(([value, label]) =>
				el(
					'button',
					{
						type: 'button',
						'aria-pressed': String(value === chosen),
						onclick: () => {
							chosen = value;
							buttons();
							load();
						},
					},
					label,
				),
			),
		);

	function place(key, title, unit, spec) {
		const name = `${key} ${unit}`;
		if (!made.has(name)) made.set(name, plot(title, unit));
		made.get(name).update(spec);
		return made.get(name).node;
	}

	function draw(history) {
		const every = `in each ${span(history.step_seconds)}`;
		const common = { from: Date.parse(history.from), step: history.step_seconds, points: history.points };
		const nodes = [];
		if (!provider) {
			nodes.push(
				place('traffic', 'Accepted and delivered', `recipients or messages ${every}`, {
					...common,
					series: [
						{ name: 'accepted', values: history.accepted, tone: 'c1', total: number(sum(history.accepted)) },
						{ name: 'delivered', values: history.delivered, tone: 'c2', total: number(sum(history.delivered)) },
					],
				}),
			);
			nodes.push(
				place('queue', 'Queue', 'messages', { ...common, series: [{ name: 'in the queue', values: history.queue, tone: 'c1' }] }),
			);
			nodes.push(place('deferred', 'Put off, by reason', `refusals ${every}`, { ...common, series: classes(history.deferred) }));
			nodes.push(
				place('throttled', 'Slowed down, by reason', `answers ${every}`, { ...common, series: classes(history.throttled) }),
			);
			nodes.push(
				place('bounced', 'Refused for good, by reason', `recipients ${every}`, { ...common, series: classes(history.bounced) }),
			);
			nodes.push(
				place('oldest', 'Oldest in the queue', 'age in minutes', {
					...common,
					fractions: true,
					series: [{ name: 'the oldest', values: history.oldest_seconds.map((s) => (s === null ? null : s / 60)), tone: 'c3' }],
				}),
			);
		}
		// A pause by hand stands among the lanes and carries nothing.
		const real = history.lanes.filter((lane) => lane.source !== '*');
		const busiest = [...real].sort(
			(a, b) => (b.provider === worst()) - (a.provider === worst()) || sum(b.connections) - sum(a.connections),
		);
		const lanes = provider ? real.filter((l) => l.provider === provider) : busiest.slice(0, 1);
		for (const lane of lanes) {
			const name = `${lane.provider} from ${lane.source}`;
			nodes.push(
				place(`connections ${name}`, `Connections, ${name}`, 'open at once', {
					...common,
					limit: lane.ceiling ? { name: 'ceiling', value: lane.ceiling } : null,
					series: [
						{ name: 'open', values: lane.connections, tone: 'c2' },
						{ name: 'allowed', values: lane.allowed, tone: 'c4' },
					],
				}),
			);
			if (provider)
				nodes.push(
					place(`rate ${name}`, `Rate, ${name}`, 'recipients a minute', {
						...common,
						fractions: true,
						series: [{ name: 'rate', values: lane.rate, tone: 'c1' }],
					}),
				);
		}
		if (nodes.length === 0) nodes.push(el('p', { class: 'empty', key: 'none' }, 'Nothing recorded yet.'));
		if (nodes.length !== grid.children.length || nodes.some((n, at) => grid.children[at] !== n)) grid.replaceChildren(...nodes);
	}

	async function load() {
		clearTimeout(timer);
		const asked = chosen;
		if (!document.hidden) {
			try {
				const history = await api.get('/history', { span: asked });
				if (!alive || asked !== chosen) return;
				wrong.textContent = '';
				last = history;
				draw(history);
				told(history);
			} catch (error) {
				if (alive) wrong.textContent = `The plots could not be read: ${error.message}`;
			}
		}
		if (alive) timer = setTimeout(load, AGAIN_MS[chosen]);
	}
	const shown = () => {
		if (!document.hidden) load();
	};
	document.addEventListener('visibilitychange', shown);
	buttons();
	load();
	return {
		node,
		again() {
			if (last) draw(last);
		},
		end() {
			alive = false;
			clearTimeout(timer);
			document.removeEventListener('visibilitychange', shown);
		},
	};
}
