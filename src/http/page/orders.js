// What an operator can order for a provider, a domain or everything: pause, resume, forget, and the report.

import * as api from './api.js';
import { count } from './format.js';
import { announce, button, confirm, dialog, el, field, select, toast } from './dom.js';

const path = (provider) => `/providers/${encodeURIComponent(provider)}`;

function done(ordered) {
	const text = ordered.changes.length ? ordered.changes.join('; ') : 'Nothing to change: it stood like that before.';
	toast(`${text}. ${count(ordered.waiting, 'delivery waits', 'deliveries wait')}.`.replace('..', '.'));
}

const named = (provider) => (provider === '*' ? 'all mail' : provider);

export function pause(provider, after) {
	confirm(
		`Pause ${named(provider)}?`,
		el(
			'p',
			{},
			`Nothing more is sent ${provider === '*' ? 'to anybody' : `to ${provider}`} until somebody resumes it, also after a restart. What is under way is finished; new mail is taken and waits.`,
		),
		`Pause ${named(provider)}`,
		async () => {
			done(await api.post(`${path(provider)}/pause`));
			after();
		},
	);
}

function forceBox() {
	return el(
		'div',
		{ class: 'check' },
		el('input', { type: 'checkbox', id: 'force', name: 'force' }),
		el('label', { for: 'force' }, 'Open at once, without asking with one message first'),
	);
}

export function resume(provider, after) {
	confirm(
		`Resume ${named(provider)}?`,
		[
			el(
				'p',
				{},
				'A pause by hand is lifted. Where the receiver stopped us, one message asks now; if it is taken the rest follows, slowly at first. Asking a receiver who blocks us again and again makes it worse.',
			),
			forceBox(),
		],
		`Resume ${named(provider)}`,
		async (form) => {
			done(await api.post(`${path(provider)}/resume`, { force: form.elements.force.checked }));
			after();
		},
	);
}

export function resumeDomain(domain, after) {
	confirm(
		`Resume mail to ${domain}?`,
		[el('p', {}, 'The pause by hand is lifted.'), forceBox()],
		`Resume ${domain}`,
		async (form) => {
			done(await api.post(`/domains/${encodeURIComponent(domain)}/resume`, { force: form.elements.force.checked }));
			after();
		},
	);
}

export function pauseDomain(after) {
	const input = el('input', {
		name: 'domain',
		required: true,
		autocomplete: 'off',
		spellcheck: 'false',
		placeholder: 'example.com',
	});
	confirm(
		'Pause mail to one domain',
		[el('p', {}, 'Other domains of the same provider go on.'), field('Domain', input)],
		'Pause the domain',
		async () => {
			done(await api.post(`/domains/${encodeURIComponent(input.value.trim())}/pause`));
			after();
		},
	);
}

export function forget(provider, sources, after) {
	const source = select({ name: 'source' }, [['', 'all addresses'], ...sources.map((s) => [s, s])]);
	confirm(
		`Forget what was learned of ${provider}?`,
		[
			el(
				'p',
				{},
				'Limits of rate, connections and messages on a connection are found anew, from the beginning. Do this when the receiver has changed its mind about you, as after a delisting; otherwise it costs refusals.',
			),
			sources.length > 1 && field('Of which sending address', source),
		],
		'Forget the limits',
		async () => {
			done(await api.post(`${path(provider)}/forget`, { source: source.value || null }));
			after();
		},
		{ danger: true },
	);
}

/** Copies where the browser allows it, also where the page came over plain HTTP from another host. */
async function copy(area) {
	try {
		await navigator.clipboard.writeText(area.value);
	} catch {
		area.focus();
		area.select();
		if (!document.execCommand('copy')) throw new Error('The browser does not allow copying: the text is selected, press Ctrl+C.');
	}
}

export async function report(provider) {
	const area = el('textarea', { id: 'report', readonly: true, rows: '16', spellcheck: 'false' });
	const said = el('p', { class: 'hint', role: 'status' }, 'Being written …');
	const copying = button(
		'Copy the text',
		async () => {
			try {
				await copy(area);
				said.textContent = 'Copied.';
			} catch (error) {
				said.textContent = error.message;
			}
		},
		{ class: 'main', disabled: true },
	);
	const node = dialog(
		`Report for ${provider}`,
		el('p', {}, 'Text for the form by which this receiver takes an address off its list. Read it before you send it.'),
		el('label', { for: 'report', class: 'sr' }, 'Text of the report'),
		area,
		said,
		el(
			'div',
			{ class: 'actions' },
			copying,
			button('Close', () => node.close()),
		),
	);
	try {
		area.value = await api.text(`${path(provider)}/report`);
		said.textContent = '';
		copying.disabled = false;
		announce('The report is ready.');
	} catch (error) {
		said.textContent = error.message;
	}
}

/** One message, to see the whole way it takes: its story is shown at once. */
export function sendTest(go) {
	const address = (name) => el('input', { name, type: 'email', required: true, spellcheck: 'false' });
	const [from, to] = [address('from'), address('to')];
	confirm(
		'Send a test message',
		[
			field('From', from, 'An address of a domain that this relay sends for'),
			field('To', to, 'An address of yours at the receiver you want to try'),
		],
		'Send',
		async () => {
			const text = 'This message was sent from the page of weir, to see whether it arrives.\n';
			const sent = await api.post('/messages', {
				from: from.value,
				to: [to.value],
				subject: 'Test message of weir',
				text,
				class: 'high',
			});
			go(`/message/${sent.id}`);
		},
	);
}
