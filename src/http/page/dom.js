// Building and changing what is shown.
//
// Text only ever becomes text: everything goes through text nodes and named attributes, nothing is ever read as markup.
// A view builds its tree anew whenever something changed, and `morph` carries the differences over, so that
// focus, selection, opened details and what somebody is typing stay as they are.

import * as format from './format.js';

const SVG = 'http://www.w3.org/2000/svg';
const HANDLERS = ['onclick', 'onsubmit', 'onchange', 'oninput', 'onkeydown', 'ontoggle', 'onpointermove', 'onpointerleave'];

function append(node, children) {
	for (const child of children.flat(Infinity)) {
		if (child === null || child === undefined || child === false || child === '') continue;
		node.append(child instanceof Node ? child : String(child));
	}
	return node;
}

/** An element. Names that begin with `on` are handlers, `value`, `checked` and `indeterminate` are properties, `key` tells rows apart. */
export function el(tag, props, ...children) {
	const node = append(document.createElement(tag), children);
	for (const [name, value] of Object.entries(props || {})) {
		if (value === null || value === undefined || value === false) continue;
		if (name.startsWith('on')) node[name] = value;
		else if (name === 'key') node.dataset.key = value;
		else if (name === 'value' && tag !== 'option' && tag !== 'button') {
			node.value = value;
			node.given = value;
		} else if (name === 'checked' || name === 'indeterminate') node[name] = value;
		else node.setAttribute(name, value === true ? '' : value);
	}
	return node;
}

export function svg(tag, attributes, ...children) {
	const node = append(document.createElementNS(SVG, tag), children);
	for (const [name, value] of Object.entries(attributes || {})) {
		if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
	}
	return node;
}

/** Makes `old` look like `fresh` with as few changes as needed. */
export function morph(old, fresh) {
	const key = (node) => (node.dataset ? node.dataset.key : undefined);
	if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || key(old) !== key(fresh)) {
		old.replaceWith(fresh);
		return fresh;
	}
	if (old.nodeType === Node.TEXT_NODE) {
		if (old.data !== fresh.data) old.data = fresh.data;
		return old;
	}
	if (old.nodeType !== Node.ELEMENT_NODE) return old;
	for (const { name } of [...old.attributes]) {
		if (!fresh.hasAttribute(name) && !(name === 'open' && old.nodeName === 'DETAILS')) old.removeAttribute(name);
	}
	for (const { name, value } of fresh.attributes) {
		if (old.getAttribute(name) !== value && !(name === 'open' && old.nodeName === 'DETAILS')) old.setAttribute(name, value);
	}
	for (const handler of HANDLERS) old[handler] = fresh[handler];
	if (fresh.type === 'checkbox') {
		old.checked = fresh.checked;
		old.indeterminate = fresh.indeterminate;
	}
	morphChildren(old, fresh);
	if ('given' in fresh && old.given !== fresh.given) {
		old.value = fresh.value;
		old.given = fresh.given;
	}
	return old;
}

function morphChildren(old, fresh) {
	const wanted = new Set([...fresh.children].map((c) => c.dataset.key).filter((k) => k !== undefined));
	const keyed = new Map();
	for (const child of [...old.children]) {
		const key = child.dataset.key;
		if (key === undefined) continue;
		if (wanted.has(key)) keyed.set(key, child);
		else child.remove();
	}
	let at = old.firstChild;
	for (const want of [...fresh.childNodes]) {
		const key = want.dataset ? want.dataset.key : undefined;
		const have = key === undefined ? (at && !(at.dataset && at.dataset.key !== undefined) ? at : null) : keyed.get(key);
		if (!have) {
			old.insertBefore(want, at);
			continue;
		}
		if (have === at) at = at.nextSibling;
		else old.insertBefore(have, at);
		morph(have, want);
	}
	while (at) {
		const next = at.nextSibling;
		at.remove();
		at = next;
	}
}

/** Puts the tree into the place, changing only what differs. */
export function show(place, ...tree) {
	const focus = document.activeElement;
	morphChildren(place, append(document.createElement('div'), tree));
	// An element that was moved has lost the focus on the way.
	if (focus !== document.activeElement && place.contains(focus)) focus.focus({ preventScroll: true });
}

// Icons are shapes as well as colours: whoever sees no colour sees the shape, whoever sees neither hears the word beside it.
const SHAPES = {
	ok: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM7 11 3.8 7.9l1.2-1.2L7 8.7l4-4 1.2 1.2z',
	slow: 'M8 1.2 15.4 14.5H.6zM7.2 6v4.2h1.6V6zm0 5.4V13h1.6v-1.6z',
	stop: 'M5 1h6l4 4v6l-4 4H5l-4-4V5zM4 7v2h8V7z',
	pause: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM5.5 5h1.8v6H5.5zm3.2 0h1.8v6H8.7z',
	ask: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM4 7.2h4.6L6.9 5.5 8 4.3 11.7 8 8 11.7l-1.1-1.2 1.7-1.7H4z',
	idle: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm0 2a5 5 0 1 1 0 10A5 5 0 0 1 8 3z',
};

export function icon(shape) {
	return svg(
		'svg',
		{ class: 'icon', viewBox: '0 0 16 16', 'aria-hidden': 'true', focusable: 'false' },
		svg('path', { d: SHAPES[shape] || SHAPES.idle, 'fill-rule': 'evenodd' }),
	);
}

const STATES = {
	open: ['ok', 'good'],
	growing: ['ok', 'good'],
	paused: ['pause', 'warn'],
	probing: ['ask', 'warn'],
	blocked: ['stop', 'bad'],
	stopped: ['stop', 'bad'],
	waiting: ['idle', 'calm'],
	active: ['ask', 'good'],
	held: ['pause', 'warn'],
	delivered: ['ok', 'good'],
	accepted: ['idle', 'calm'],
	deferred: ['pause', 'warn'],
	bounced: ['stop', 'bad'],
	expired: ['stop', 'bad'],
	removed: ['stop', 'calm'],
	refused: ['stop', 'warn'],
	suppressed: ['stop', 'warn'],
	throttled: ['slow', 'warn'],
	resumed: ['ok', 'good'],
	returned: ['stop', 'bad'],
	complained: ['stop', 'bad'],
	unsubscribed: ['stop', 'warn'],
	feedback: ['idle', 'calm'],
	alert: ['slow', 'bad'],
	suspended: ['pause', 'warn'],
};

/** A state as shape, colour and word. */
export function badge(state, word = state) {
	const [shape, tone] = STATES[state] || ['idle', 'calm'];
	return el('span', { class: `badge ${tone}` }, icon(shape), word);
}

/** A moment: absolute, and how far away, which goes on by itself. */
export function when(time, { plain = false, seconds = true } = {}) {
	const ms = typeof time === 'number' ? time : Date.parse(time);
	if (time === null || time === undefined || Number.isNaN(ms)) return el('span', {}, '–');
	const at = el('time', { datetime: new Date(ms).toISOString(), title: format.utc(ms) }, format.clock(ms, { seconds }));
	return plain ? at : el('span', { class: 'when' }, at, ' ', el('span', { class: 'nowrap' }, '(', since(ms), ')'));
}

/** How far away a moment is, alone. */
export function since(time) {
	const ms = typeof time === 'number' ? time : Date.parse(time);
	if (Number.isNaN(ms)) return el('span', {}, '–');
	return el('span', { 'data-at': String(ms), title: format.utc(ms) }, format.relative(ms));
}

export function tick() {
	for (const node of document.querySelectorAll('[data-at]')) {
		const text = format.relative(Number(node.dataset.at));
		if (node.textContent !== text) node.textContent = text;
	}
}

/** Words of our own, in which an address of the web may be followed. Never for what a receiver said. */
export function linked(text) {
	return String(text ?? '')
		.split(/(https:\/\/[^\s;,)]*[^\s;,).:])/)
		.map((part, at) => (at % 2 ? el('a', { href: part, target: '_blank', rel: 'noopener noreferrer' }, part) : part));
}

export const quote = (reply) => el('q', { class: 'reply' }, reply);

/** Words of weir that may end in a receiver's own: these are quoted as they came. */
export function worded(text) {
	const [, before, reply] = /^((?:[^]*?: )?)([2-5]\d\d[ -](?:\d\.\d|[A-Z])[^]*)$/.exec(text || '') || [];
	return reply ? [format.local(before), quote(reply)] : format.local(text);
}

export function button(label, onclick, props = {}) {
	return el('button', { type: 'button', onclick, ...props }, label);
}

/** A field with its label. */
export function field(label, input, hint = null) {
	const id = input.id || `field-${label.toLowerCase().replace(/[^a-z]+/g, '-')}`;
	input.id = id;
	if (hint) input.setAttribute('aria-describedby', `${id}-hint`);
	return el(
		'div',
		{ class: 'field' },
		el('label', { for: id }, label),
		input,
		hint && el('p', { class: 'hint', id: `${id}-hint` }, hint),
	);
}

export function select(props, options) {
	const { value = '', ...rest } = props;
	const node = el(
		'select',
		rest,
		options.map(([v, text]) => el('option', { value: v }, text)),
	);
	node.value = value;
	node.given = value;
	return node;
}

/** Said to those who listen, without moving anything; the newest counts. */
let pending = 0;
export function announce(text) {
	clearTimeout(pending);
	pending = setTimeout(() => {
		document.getElementById('said').textContent = text;
	}, 200);
}

/** A short message at the edge: what was done goes by itself, what went wrong stays until it is closed. */
export function toast(text, wrong = false) {
	const close = () => node.remove();
	const node = el(
		'div',
		{ class: wrong ? 'toast bad' : 'toast good', role: wrong ? 'alert' : 'status' },
		icon(wrong ? 'stop' : 'ok'),
		el('span', {}, text),
		button('Close', close, { class: 'quiet' }),
	);
	document.getElementById('toasts').append(node);
	if (!wrong) setTimeout(close, 8000);
}

/** A dialog over the page. The browser keeps the focus inside, Escape closes it, and the focus goes back to where it was. */
export function dialog(title, ...body) {
	const before = document.activeElement;
	const heading = el('h2', { id: 'dialog-title' }, title);
	const node = el('dialog', { 'aria-labelledby': 'dialog-title' }, heading, body);
	document.body.append(node);
	node.addEventListener('close', () => {
		node.remove();
		if (before && before.isConnected) before.focus();
		// It may be gone, or can be pressed no more.
		if (document.activeElement !== before || before === document.body) document.getElementById('main').focus();
	});
	// The browser would let Tab go on to its own bars.
	node.addEventListener('keydown', (event) => {
		if (event.key !== 'Tab') return;
		const stops = [...node.querySelectorAll('a[href], button, input, select, textarea')].filter(
			(stop) => !stop.disabled && stop.offsetParent !== null,
		);
		const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
		if (to && (document.activeElement === from || !node.contains(document.activeElement) || document.activeElement === node)) {
			event.preventDefault();
			to.focus();
		}
	});
	node.showModal();
	return node;
}

/** Asks before something is done. `act` does it; while it is under way nothing can be pressed twice, and what goes wrong is said here.
 *  What cannot be undone is not done by a hasty Enter: there Cancel has the focus. */
export function confirm(title, body, label, act, { danger = false } = {}) {
	const wrong = el('p', { class: 'wrong', role: 'alert' });
	const go = el('button', { type: 'submit', class: danger ? 'danger' : 'main' }, label);
	const form = el(
		'form',
		{
			onsubmit: async (event) => {
				event.preventDefault();
				if (go.disabled) return;
				const words = go.textContent;
				go.disabled = true;
				go.textContent = 'Under way …';
				wrong.textContent = '';
				try {
					await act(form);
					node.close();
				} catch (error) {
					wrong.textContent = error.message;
					go.textContent = words;
					go.disabled = false;
				}
			},
		},
		body,
		wrong,
		el(
			'div',
			{ class: 'actions' },
			go,
			button('Cancel', () => node.close(), { autofocus: danger }),
		),
	);
	const node = dialog(title, form);
	return { node, form, go };
}
