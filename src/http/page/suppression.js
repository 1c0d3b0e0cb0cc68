// The suppression list: who is not written to any more, and why; waves that wait for a decision; import and export.

import * as api from './api.js';
import { count, number } from './format.js';
import { announce, badge, button, confirm, dialog, el, field, select, show, since, toast, when, worded } from './dom.js';

const PAGE = 50;
const CLASSES = ['recipient-unknown', 'recipient-disabled', 'mailbox-full', 'recipient-policy', 'other'];
const SOURCES = ['bounce', 'wave', 'complaint', 'unsubscribe', 'manual', 'import'];

function add(after) {
	const recipient = el('input', { type: 'email', name: 'recipient', required: true, autocomplete: 'off' });
	const kind = select({ name: 'class' }, [['', 'none'], ...CLASSES.map((c) => [c, c])]);
	const reason = el('input', { name: 'reason', autocomplete: 'off' });
	const expires = el('input', { name: 'expires', type: 'datetime-local' });
	confirm(
		'Suppress an address',
		[
			field('Address', recipient),
			field('Class', kind),
			field('Reason', reason, 'For those who ask later why it is here'),
			field('Until', expires, 'Empty: until it is removed'),
		],
		'Suppress',
		async () => {
			await api.post('/suppressions', {
				recipient: recipient.value.trim(),
				class: kind.value || null,
				reason: reason.value.trim() || null,
				expires: expires.value ? new Date(expires.value).toISOString() : null,
			});
			toast(`${recipient.value.trim()} is not written to any more.`);
			after();
		},
	);
}

function removeThem(recipients, after) {
	confirm(
		`Remove ${count(recipients.length, 'address', 'addresses')}?`,
		[
			el('p', {}, 'Mail to these addresses is sent again. A receiver counts mail to people who do not exist against you.'),
			el(
				'ul',
				{ class: 'plain addresses' },
				recipients.slice(0, 20).map((r) => el('li', { class: 'address' }, r)),
				recipients.length > 20 && el('li', {}, `and ${number(recipients.length - 20)} more`),
			),
		],
		`Remove ${count(recipients.length, 'address', 'addresses')}`,
		async () => {
			const { items } = await api.remove('/suppressions', { recipients });
			const gone = items.filter((item) => item.removed).length;
			toast(
				`${count(gone, 'address', 'addresses')} removed.${gone < items.length ? ` ${number(items.length - gone)} had left the list already.` : ''}`,
			);
			after();
		},
		{ danger: true },
	);
}

function bringIn(after) {
	const file = el('input', { type: 'file', id: 'import-file', accept: '.csv,.txt,.jsonl,.ndjson,text/csv,text/plain' });
	const lines = el('textarea', { id: 'import-lines', rows: '6', spellcheck: 'false', placeholder: 'gone@example.com' });
	const said = el('p', { role: 'status', class: 'hint' });
	const wrong = el('p', { class: 'wrong', role: 'alert' });
	const bar = el('progress', { 'aria-label': 'Import', hidden: true });
	const stop = new AbortController();
	let running = false;
	const go = el('button', { type: 'submit', class: 'main' }, 'Import');
	const close = button('Close', () => node.close());
	const form = el(
		'form',
		{
			onsubmit: async (event) => {
				event.preventDefault();
				if (running) return;
				const body = file.files[0] || lines.value;
				wrong.textContent = '';
				if (!body || (typeof body === 'string' && !body.trim())) {
					wrong.textContent = 'Choose a file, or write addresses, one a line.';
					return;
				}
				const ndjson =
					/\.(jsonl|ndjson)$/i.test(body.name || '') || (typeof body === 'string' && body.trimStart().startsWith('{'));
				running = true;
				go.disabled = true;
				bar.hidden = false;
				close.textContent = 'Stop';
				let last = { added: 0, updated: 0 };
				let drawn = 0;
				try {
					await api.upload(
						'/suppressions/import',
						body,
						ndjson ? 'application/x-ndjson' : 'text/csv',
						(record) => {
							if (record.added === undefined) return;
							last = record;
							if (Date.now() - drawn < 500) return;
							drawn = Date.now();
							said.textContent = `${number(last.added)} added, ${number(last.updated)} known before …`;
						},
						stop.signal,
					);
					said.textContent = `Done: ${number(last.added)} added, ${number(last.updated)} known before.`;
					announce(said.textContent);
				} catch (error) {
					wrong.textContent = stop.signal.aborted
						? 'Stopped. What was taken until then stays.'
						: `${error.message} Until then ${number(last.added)} were added, which stay.`;
				}
				running = false;
				bar.hidden = true;
				close.textContent = 'Close';
				after();
			},
		},
		field('A file', file, 'An address a line, CSV with names, or what Export wrote'),
		field('Or addresses, one a line', lines),
		bar,
		said,
		wrong,
		el('div', { class: 'actions' }, go, close),
	);
	const node = dialog('Import into the suppression list', form);
	node.addEventListener('close', () => stop.abort());
}

export function suppressionView(context, query) {
	const head = el('div', {});
	const waves = el('div', {});
	const place = el('div', {});
	const node = el('div', {}, el('h1', { tabindex: '-1' }, 'Suppression list'), waves, head, place);
	let page = { items: [], next: null, count: null };
	let ready = false;
	let wrong = null;
	let asked = 0;
	const chosen = new Set();
	const go = (change) => context.go('/suppression', { ...query, after: '', ...change });

	/** The box: an address, `@domain`, a domain, or a part of the receiver's words. */
	function filter() {
		const words = (query.q || '').trim();
		const found = { class: query.class, source: query.source, wave: query.wave };
		if (/^@[^@\s]+$/.test(words)) found.domain = words.slice(1);
		else if (/^[^@\s]+@[^@\s]+$/.test(words)) found.recipient = words;
		else if (/^[^\s@]+\.[a-z][^\s@.]+$/i.test(words)) found.domain = words;
		else if (words) found.reply = words;
		return found;
	}

	async function load() {
		const mine = (asked += 1);
		drawHead();
		try {
			const found = await api.get('/suppressions', { ...filter(), limit: PAGE, after: query.after });
			if (mine !== asked) return;
			page = found;
			wrong = null;
			const here = new Set(page.items.map((entry) => entry.recipient));
			for (const recipient of [...chosen]) if (!here.has(recipient)) chosen.delete(recipient);
			announce(
				page.items.length
					? `${count(page.items.length, 'entry', 'entries')}${page.next ? ', more follow' : ''}.`
					: 'Nothing found.',
			);
		} catch (error) {
			if (mine !== asked) return;
			wrong = `The list could not be read: ${error.message}`;
		}
		ready = true;
		draw();
	}

	async function loadWaves() {
		try {
			const { items } = await api.get('/suppressions/waves');
			show(
				waves,
				items.length > 0 &&
					el(
						'section',
						{ class: 'card tone-paused', 'aria-labelledby': 'waves' },
						el('h2', { id: 'waves' }, 'Waves that wait for a decision'),
						el(
							'p',
							{},
							'Many recipients were refused with the same words. They are held back provisionally: confirm that they do not exist, or undo it and they are written to again.',
						),
						el(
							'ul',
							{ class: 'waves' },
							items.map((wave) =>
								el(
									'li',
									{ key: wave.wave },
									el(
										'div',
										{},
										el('strong', {}, count(wave.entries, 'address', 'addresses')),
										` at ${wave.provider || 'several receivers'}, `,
										when(wave.first),
										' to ',
										when(wave.last, { plain: true }),
										wave.expires && ['; free again from ', when(wave.expires)],
									),
									el(
										'div',
										{ class: 'buttons' },
										el(
											'a',
											{
												class: 'button',
												href: context.href('/suppression', { wave: wave.wave }),
												'aria-label': `Look at wave ${wave.wave}`,
											},
											'Look at them',
										),
										button('Confirm …', () => decide(wave, 'confirm'), { 'aria-label': `Confirm wave ${wave.wave}` }),
										button('Undo …', () => decide(wave, 'undo'), { 'aria-label': `Undo wave ${wave.wave}` }),
									),
								),
							),
						),
					),
			);
		} catch (error) {
			show(waves, el('p', { class: 'wrong' }, `The waves could not be read: ${error.message}`));
		}
	}

	function decide(wave, what) {
		const many = count(wave.entries, 'address', 'addresses');
		confirm(
			what === 'confirm' ? `Keep ${many} on the list?` : `Take ${many} off the list?`,
			el(
				'p',
				{},
				what === 'confirm'
					? 'They hold as any other refusal from now on.'
					: 'Mail to them is sent again. Do this when the receiver was wrong, as after a fault of its directory.',
			),
			what === 'confirm' ? 'Confirm the wave' : 'Undo the wave',
			async () => {
				const { entries } = await api.post(`/suppressions/waves/${encodeURIComponent(wave.wave)}/${what}`);
				toast(`${count(entries, 'address', 'addresses')} ${what === 'confirm' ? 'confirmed' : 'taken off the list'}.`);
				load();
				loadWaves();
			},
		);
	}

	const again = () => {
		chosen.clear();
		load();
		loadWaves();
	};

	function drawHead() {
		const box = el('input', { type: 'search', name: 'q', value: query.q || '', autocomplete: 'off', spellcheck: 'false' });
		show(
			head,
			el(
				'form',
				{
					class: 'filters',
					role: 'search',
					'aria-label': 'Suppression list',
					onsubmit: (event) => {
						event.preventDefault();
						go({ q: event.target.elements.q.value.trim() });
					},
				},
				field('Find', box, 'An address, @domain, or words of the reply'),
				field(
					'Class',
					select({ name: 'class', value: query.class || '', onchange: (event) => go({ class: event.target.value }) }, [
						['', 'all'],
						...CLASSES.map((c) => [c, c]),
					]),
				),
				field(
					'Came by',
					select({ name: 'source', value: query.source || '', onchange: (event) => go({ source: event.target.value }) }, [
						['', 'all'],
						...SOURCES.map((s) => [s, s]),
					]),
				),
				el(
					'div',
					{ class: 'buttons' },
					el('button', { type: 'submit', class: 'main' }, 'Find'),
					query.wave && el('a', { class: 'button', href: '#/suppression' }, 'All waves and entries'),
				),
			),
			el(
				'div',
				{ class: 'bulk', role: 'group', 'aria-label': 'Act on the list' },
				el(
					'div',
					{ class: 'buttons' },
					button('Add …', () => add(again)),
					button('Import …', () => bringIn(again)),
					el('a', { class: 'button', href: api.href('/suppressions/export'), download: 'suppressions.csv' }, 'Export'),
					button(`Remove ${chosen.size ? `${number(chosen.size)} chosen` : 'chosen'} …`, () => removeThem([...chosen], again), {
						disabled: chosen.size === 0,
						class: 'risky',
					}),
				),
			),
		);
	}

	function draw() {
		drawHead();
		const all = page.items.length > 0 && page.items.every((entry) => chosen.has(entry.recipient));
		const pick = el('input', {
			type: 'checkbox',
			'aria-label': 'Choose all entries of this page',
			checked: all,
			indeterminate: !all && chosen.size > 0,
			onchange: (event) => {
				for (const entry of page.items)
					if (event.target.checked) chosen.add(entry.recipient);
					else chosen.delete(entry.recipient);
				draw();
			},
		});
		show(
			place,
			wrong && el('p', { class: 'wrong', role: 'alert' }, wrong),
			typeof page.count === 'number' &&
				el('p', { class: 'hint' }, `${count(page.count, 'entry is', 'entries are')} on the list.`),
			page.items.length > 0
				? el(
						'div',
						{ class: 'scroll' },
						el(
							'table',
							{ class: 'rows' },
							el('caption', { class: 'sr' }, 'Suppressed addresses'),
							el(
								'thead',
								{},
								el(
									'tr',
									{},
									el('th', { class: 'pick' }, pick, el('span', { class: 'narrow' }, ' All of this page')),
									['Address', 'Class', 'Came by', 'First', 'Last', 'Refusals', 'Until', 'Why'].map((name) =>
										el('th', { scope: 'col' }, name),
									),
								),
							),
							el(
								'tbody',
								{},
								page.items.map((entry) =>
									el(
										'tr',
										{ key: `${entry.recipient} ${entry.sender_domain || ''}` },
										el(
											'td',
											{ class: 'pick' },
											el('input', {
												type: 'checkbox',
												'aria-label': `Choose ${entry.recipient}`,
												checked: chosen.has(entry.recipient),
												onchange: (event) => {
													if (event.target.checked) chosen.add(entry.recipient);
													else chosen.delete(entry.recipient);
													draw();
												},
											}),
										),
										el(
											'td',
											{ 'data-label': 'Address', class: 'who' },
											el('span', { class: 'address' }, entry.recipient),
											entry.sender_domain && el('div', { class: 'hint' }, `only for mail from ${entry.sender_domain}`),
										),
										el('td', { 'data-label': 'Class' }, entry.class || '–'),
										el('td', { 'data-label': 'Came by' }, entry.source, entry.wave && badge('suspended', 'provisional')),
										el('td', { 'data-label': 'First' }, entry.first ? since(entry.first) : '–'),
										el('td', { 'data-label': 'Last' }, entry.last ? since(entry.last) : '–'),
										el('td', { 'data-label': 'Refusals', class: 'n' }, number(entry.hits)),
										el(
											'td',
											{ 'data-label': 'Until' },
											entry.expires ? when(entry.expires, { seconds: false }) : 'removed by hand',
										),
										el(
											'td',
											{ 'data-label': 'Why', class: 'reason' },
											entry.reply && el('div', { class: 'clamp' }, worded(entry.reply)),
										),
									),
								),
							),
						),
					)
				: ready && !wrong
					? el(
							'p',
							{ class: 'empty' },
							Object.values(filter()).some(Boolean) || query.after ? 'No entry fits.' : 'Nobody is on the list.',
						)
					: !wrong && el('p', { class: 'empty' }, 'Being read …'),
			el(
				'nav',
				{ class: 'actions', 'aria-label': 'Pages' },
				query.after && el('a', { class: 'button', href: context.href('/suppression', { ...query, after: '' }) }, 'First page'),
				page.next &&
					el('a', { class: 'button', href: context.href('/suppression', { ...query, after: page.next }) }, 'Next page'),
			),
		);
	}

	load();
	loadWaves();
	return {
		node,
		title: 'Suppression list',
		update(next) {
			if (next.after !== query.after) {
				node.querySelector('h1').focus();
				window.scrollTo(0, 0);
			}
			query = next;
			chosen.clear();
			load();
		},
		end() {
			asked += 1;
		},
	};
}
