// One message's story: how it stands, every attempt with its reply, what that means, and the header. Never the body.

import * as api from './api.js';
import { bytes, count, number, replyLabel } from './format.js';
import { badge, button, el, linked, quote, show, when, worded } from './dom.js';
import { orderButtons, nextWords } from './queue.js';
import { providerHref } from './lanes.js';

const term = (name, ...value) => el('div', {}, el('dt', {}, name), el('dd', {}, value));

/** What a reply means is asked for once, when somebody wants to know. */
function meaning(event) {
	const place = el('div', {});
	let asked = false;
	return el(
		'details',
		{
			ontoggle: async (toggled) => {
				if (!toggled.target.open || asked) return;
				asked = true;
				place.replaceChildren('Being read …');
				try {
					const said = await api.get('/explain', { reply: event.reply, provider: event.provider });
					place.replaceChildren(...reading(said));
				} catch (error) {
					asked = false;
					place.replaceChildren(error.message);
				}
			},
		},
		el('summary', {}, 'What it means'),
		place,
	);
}

function reading(said) {
	return [
		said.cause && el('p', {}, el('span', { class: 'cap' }, 'Means: '), said.cause),
		said.does && el('p', {}, el('span', { class: 'cap' }, 'What weir does: '), said.does),
		said.remedy && el('p', {}, el('span', { class: 'cap' }, 'To do: '), linked(said.remedy)),
	].filter(Boolean);
}

function attempt(event) {
	const facts = [
		event.attempt && `attempt ${number(event.attempt)}`,
		event.provider,
		event.source && `from ${event.source}`,
		event.mx,
		event.tls && (event.tls === 'none' ? 'clear text' : event.tls),
		event.class,
		event.rule && `rule ${event.rule}`,
		event.verdict,
		typeof event.delay === 'number' && `${number(event.delay)} s after it came`,
		event.client && `by ${event.client}`,
		event.user && `user ${event.user}`,
		event.size && bytes(event.size),
	].filter(Boolean);
	return el(
		'li',
		{ class: 'event', key: `s${event.seq}` },
		el('span', { class: 'moment' }, when(event.time)),
		el('span', {}, badge(event.event)),
		el(
			'div',
			{ class: 'what' },
			event.recipient && el('div', { class: 'address' }, event.recipient),
			event.text && el('div', {}, worded(event.text)),
			event.reply && el('div', {}, quote(event.reply)),
			el('div', { class: 'hint' }, facts.join(' · ')),
			event.reply && event.event !== 'delivered' && meaning(event),
		),
	);
}

function delivery(detail) {
	return el(
		'article',
		{ class: 'card', key: detail.domain, 'aria-label': `Delivery to ${detail.domain}` },
		el(
			'header',
			{},
			el('h3', {}, detail.domain),
			badge(detail.state),
			detail.stopped && el('span', { class: 'tag' }, `lane ${detail.stopped}`),
		),
		el(
			'dl',
			{ class: 'facts' },
			term(
				detail.recipients.length === 1 ? 'Recipient' : 'Recipients',
				el(
					'ul',
					{ class: 'plain' },
					detail.recipients.map((address) => el('li', { class: 'address' }, address)),
				),
			),
			term('Provider', detail.provider ? el('a', { href: providerHref(detail.provider) }, detail.provider) : 'not known yet'),
			term('Attempts', number(detail.attempts)),
			term('Next try', nextWords(detail)),
			typeof detail.ahead === 'number' && term('Before it', count(detail.ahead, 'delivery', 'deliveries')),
			detail.turn_at && term('Its turn is about', when(detail.turn_at)),
			detail.expires && term('Given up', when(detail.expires, { seconds: false })),
		),
		detail.waits_for && el('p', {}, el('span', { class: 'cap' }, 'Waits for: '), worded(detail.waits_for)),
		detail.last &&
			el(
				'div',
				{},
				el(
					'p',
					{},
					el('span', { class: 'cap' }, 'Last reply'),
					` (${[replyLabel(detail.last.reply), detail.last.class, detail.last.mx].filter(Boolean).join(', ')}), `,
					when(detail.last.at),
					': ',
					quote(detail.last.reply),
				),
			),
		detail.cause && el('p', {}, el('span', { class: 'cap' }, 'Means: '), detail.cause),
		detail.does && el('p', {}, el('span', { class: 'cap' }, 'What weir does: '), detail.does),
		detail.remedy && el('p', {}, el('span', { class: 'cap' }, 'To do: '), linked(detail.remedy)),
	);
}

export function messageView(context, query, id) {
	const place = el('div', {});
	const node = el('div', {}, el('h1', { tabindex: '-1' }, 'Message ', el('span', { class: 'id' }, id)), place);
	let story = null;
	let wrong = null;
	let alive = true;
	let timer = 0;

	async function load() {
		try {
			story = await api.get(`/queue/${encodeURIComponent(id)}`);
			wrong = null;
		} catch (error) {
			story = null;
			wrong =
				error.status === 404
					? 'Neither the queue nor the event log knows this message: the log of its time may have been deleted, or the ID is not quite right.'
					: error.message;
		}
		if (alive) draw();
	}

	function draw() {
		if (!story) {
			show(
				place,
				el('p', { class: wrong ? 'wrong' : 'empty' }, wrong || 'Being read …'),
				wrong && el('p', {}, el('a', { href: '#/queue' }, 'To the queue'), ' · ', button('Try again', load)),
			);
			return;
		}
		const first = story.deliveries[0] || {};
		const accepted = story.events.find((event) => event.event === 'accepted') || {};
		const sender = first.sender ?? accepted.sender;
		const events = [...story.events].sort((a, b) => a.seq - b.seq);
		show(
			place,
			el(
				'dl',
				{ class: 'facts' },
				term('From', el('span', { class: 'address' }, sender === '' ? '<> (a report)' : (sender ?? '–'))),
				term('Came', when(first.received || accepted.time)),
				term('Size', bytes(first.size_bytes ?? accepted.size)),
				term('Message-ID', el('span', { class: 'address' }, first.message_id || accepted.message_id || 'none')),
				term(
					'Handed in by',
					[first.client || accepted.client, (first.user || accepted.user) && `user ${first.user || accepted.user}`]
						.filter(Boolean)
						.join(', ') || 'weir itself',
				),
			),
			story.deliveries.length > 0
				? [
						el(
							'div',
							{ class: 'bulk', role: 'group', 'aria-label': 'Act on this message' },
							el(
								'div',
								{ class: 'buttons' },
								orderButtons(
									() => ({ ids: [id] }),
									() => 'this message',
									load,
								),
							),
						),
						el('h2', {}, 'Still in the queue'),
						el('div', { class: 'cards' }, story.deliveries.map(delivery)),
					]
				: el('p', { class: 'notice' }, 'It is not in the queue any more: every recipient has come to an end, as told below.'),
			el('h2', {}, 'What happened'),
			events.length
				? el('ol', { class: 'events' }, events.map(attempt))
				: el('p', { class: 'empty' }, 'The event log says nothing of it.'),
			el('h2', {}, 'Header'),
			story.headers
				? el(
						'details',
						{},
						el('summary', {}, 'Show the header'),
						el('pre', { class: 'headers', tabindex: '0', role: 'region', 'aria-label': 'Header of the message' }, story.headers),
					)
				: el('p', { class: 'empty' }, 'The header is gone with the message.'),
		);
	}

	draw();
	load();
	return {
		node,
		title: `Message ${id}`,
		update() {},
		/** What happens to this message meanwhile is read at once, though not for each of a thousand recipients. */
		log(event) {
			if (event.id === id && !timer)
				timer = setTimeout(() => {
					timer = 0;
					if (alive) load();
				}, 500);
		},
		end() {
			alive = false;
			clearTimeout(timer);
		},
	};
}
