// Plots: lines or stacked steps over time, as SVG of our own.
//
// Each plot can be read with the pointer, with the arrow keys (it is a slider over time) and as text: its value says what it shows at
// the chosen moment. Lines differ in their dashes as well as in colour. A gap in the numbers is a gap in the line.

import { clock, day, number } from './format.js';
import { el, svg } from './dom.js';

const HEIGHT = 168;
const LEFT = 46;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

function niceStep(most, steps) {
	const rough = most / steps;
	const power = 10 ** Math.floor(Math.log10(rough));
	return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
}

const short = (n) => (n >= 1e6 ? `${number(n / 1e6)} M` : n >= 10000 ? `${number(n / 1000)} k` : number(n));

function timeTicks(from, to, width) {
	const steps = [5, 10, 15, 30, 60, 180, 360, 720, 1440, 2880, 7200, 14400].map((minutes) => minutes * 60000);
	const step = steps.find((s) => (to - from) / s <= width / 80) || steps[steps.length - 1];
	const shift = new Date(from).getTimezoneOffset() * 60000;
	const ticks = [];
	for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to; at += step) ticks.push({ at, days: step >= 86400000 });
	return ticks;
}

/** `series`: `{name, values, tone, stacked}`; `limit`: a level that is drawn across. The plot keeps its place and its cursor over `update`. */
export function plot(title, unit) {
	let spec = null;
	let cursor = null;
	const picture = svg('svg', { class: 'picture', 'aria-hidden': 'true', focusable: 'false' });
	const readout = el('div', { class: 'readout', 'aria-hidden': 'true' });
	const legend = el('ul', { class: 'legend' });
	const surface = el(
		'div',
		{ class: 'surface', tabindex: '0', role: 'slider', 'aria-label': `${title}, ${unit}`, 'aria-valuemin': '0' },
		picture,
		readout,
	);
	const node = el(
		'figure',
		{ class: 'plot' },
		el('figcaption', {}, el('span', {}, title), el('span', { class: 'unit' }, unit)),
		surface,
		legend,
	);

	const width = () => Math.max(240, surface.clientWidth || 480);
	const inner = () => width() - LEFT - RIGHT;
	const x = (at) => LEFT + (spec.points < 2 ? 0 : (at / (spec.points - 1)) * inner());
	const moment = (at) => spec.from + at * spec.step * 1000;

	function describe(at) {
		const parts = spec.series.map(
			(s) => `${s.name} ${s.values[at] === null || s.values[at] === undefined ? 'not recorded' : number(s.values[at])}`,
		);
		return `${clock(moment(at), { seconds: false })}: ${parts.join(', ')}`;
	}

	function read(at) {
		cursor = at === null ? null : Math.min(spec.points - 1, Math.max(0, at));
		const shown = cursor === null ? spec.points - 1 : cursor;
		surface.setAttribute('aria-valuenow', String(shown));
		surface.setAttribute('aria-valuetext', spec.points ? describe(shown) : 'nothing recorded yet');
		readout.textContent = cursor === null ? '' : describe(shown);
		const mark = picture.querySelector('.cursor');
		if (mark) {
			mark.setAttribute('visibility', cursor === null ? 'hidden' : 'visible');
			mark.setAttribute('x1', x(shown));
			mark.setAttribute('x2', x(shown));
		}
	}

	function draw() {
		if (!spec) return;
		const w = width();
		const stacked = spec.series.some((s) => s.stacked);
		const sums = Array.from({ length: spec.points }, (_, at) => spec.series.reduce((sum, s) => sum + (s.values[at] || 0), 0));
		const highest = Math.max(0, ...(stacked ? sums : spec.series.flatMap((s) => s.values.filter((v) => v !== null))));
		const limitShown = spec.limit && highest > 0.25 * spec.limit.value;
		const most = Math.max(highest, limitShown ? spec.limit.value : 0, 1);
		const step = Math.max(niceStep(most, 4), spec.fractions ? 0 : 1);
		const top = Math.ceil(most / step) * step;
		const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
		picture.setAttribute('viewBox', `0 0 ${w} ${HEIGHT}`);
		picture.setAttribute('height', HEIGHT);

		const parts = [];
		for (let value = 0; value <= top + step / 2; value += step) {
			parts.push(
				svg('line', { class: 'grid', x1: LEFT, x2: w - RIGHT, y1: y(value), y2: y(value) }),
				svg('text', { class: 'label', x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' }, short(value)),
			);
		}
		const to = moment(spec.points - 1);
		for (const { at, days } of timeTicks(spec.from, to, inner())) {
			const place = LEFT + ((at - spec.from) / Math.max(1, to - spec.from)) * inner();
			parts.push(svg('line', { class: 'grid', x1: place, x2: place, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }));
			if (place > LEFT + 14 && place < w - 24) {
				const d = new Date(at);
				const label = days ? day(at) : `${String(d.getHours()).padStart(2, '0')}:${String(d.getMinutes()).padStart(2, '0')}`;
				parts.push(svg('text', { class: 'label', x: place, y: HEIGHT - 5, 'text-anchor': 'middle' }, label));
			}
		}
		const base = new Array(spec.points).fill(0);
		for (const s of spec.series) {
			if (stacked) {
				let path = '';
				const slot = inner() / Math.max(1, spec.points);
				for (let at = 0; at < spec.points; at += 1) {
					const value = s.values[at] || 0;
					if (value > 0) {
						const left = LEFT + at * slot;
						path += `M${left.toFixed(1)} ${y(base[at]).toFixed(1)}V${y(base[at] + value).toFixed(1)}h${Math.max(1, slot - 0.6).toFixed(1)}V${y(base[at]).toFixed(1)}z`;
					}
					base[at] += value;
				}
				parts.push(svg('path', { class: `area ${s.tone}`, d: path }));
			} else {
				let path = '';
				let pen = false;
				s.values.forEach((value, at) => {
					if (value === null || value === undefined) {
						pen = false;
						return;
					}
					path += `${pen ? 'L' : 'M'}${x(at).toFixed(1)} ${y(value).toFixed(1)}${pen ? '' : 'h.01'}`;
					pen = true;
				});
				parts.push(svg('path', { class: `line ${s.tone}`, d: path }));
			}
		}
		if (limitShown)
			parts.push(svg('line', { class: 'limit', x1: LEFT, x2: w - RIGHT, y1: y(spec.limit.value), y2: y(spec.limit.value) }));
		if (highest === 0 && spec.series.every((s) => s.values.every((v) => v === null || v === undefined))) {
			parts.push(
				svg('text', { class: 'label', x: LEFT + inner() / 2, y: HEIGHT / 2, 'text-anchor': 'middle' }, 'nothing recorded yet'),
			);
		}
		parts.push(svg('line', { class: 'cursor', y1: TOP, y2: HEIGHT - BOTTOM, visibility: 'hidden' }));
		picture.replaceChildren(...parts);
		legend.replaceChildren(
			...spec.series.map((s) =>
				el(
					'li',
					{},
					svg(
						'svg',
						{ class: 'swatch', viewBox: '0 0 22 10', 'aria-hidden': 'true' },
						s.stacked
							? svg('rect', { class: `area ${s.tone}`, x: 0, y: 0, width: 22, height: 10 })
							: svg('path', { class: `line ${s.tone}`, d: 'M0 5H22' }),
					),
					`${s.name}${s.total === undefined ? '' : `: ${s.total}`}`,
				),
			),
			spec.limit
				? el(
						'li',
						{},
						svg(
							'svg',
							{ class: 'swatch', viewBox: '0 0 22 10', 'aria-hidden': 'true' },
							svg('path', { class: 'limit', d: 'M0 5H22' }),
						),
						`${spec.limit.name}: ${number(spec.limit.value)}${limitShown ? '' : ' (above the picture)'}`,
					)
				: '',
		);
		surface.setAttribute('aria-valuemax', String(Math.max(0, spec.points - 1)));
		read(cursor);
	}

	surface.onpointermove = (event) => {
		if (!spec || !spec.points) return;
		const box = surface.getBoundingClientRect();
		read(Math.round(((event.clientX - box.left - LEFT) / inner()) * (spec.points - 1)));
	};
	surface.onpointerleave = () => spec && read(null);
	surface.onblur = () => spec && read(null);
	surface.onkeydown = (event) => {
		if (!spec || !spec.points) return;
		const shown = cursor === null ? spec.points - 1 : cursor;
		const moves = {
			ArrowLeft: shown - 1,
			ArrowRight: shown + 1,
			ArrowDown: shown - 1,
			ArrowUp: shown + 1,
			PageDown: shown - 10,
			PageUp: shown + 10,
			Home: 0,
			End: spec.points - 1,
		};
		if (!(event.key in moves)) return;
		event.preventDefault();
		read(moves[event.key]);
	};
	if (window.ResizeObserver) new ResizeObserver(draw).observe(surface);
	return {
		node,
		update(next) {
			spec = next;
			if (cursor !== null && cursor >= spec.points) cursor = null;
			draw();
		},
	};
}

/** The largest few classes on their own, the others together. */
export function classes(byClass, most = 5) {
	const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);
	const all = Object.entries(byClass || {})
		.map(([name, values]) => ({ name, values, sum: sum(values) }))
		.filter((s) => s.sum > 0)
		.sort((a, b) => b.sum - a.sum || a.name.localeCompare(b.name));
	const own = all.slice(0, all.length > most ? most - 1 : most);
	const others = all.slice(own.length);
	if (others.length) {
		own.push({
			name: `${others.length} others`,
			sum: sum(others.map((s) => s.sum)),
			values: others[0].values.map((_, at) => sum(others.map((s) => s.values[at]))),
		});
	}
	return own.map((s, at) => ({ name: s.name, values: s.values, tone: `c${at + 1}`, stacked: true, total: number(s.sum) }));
}
