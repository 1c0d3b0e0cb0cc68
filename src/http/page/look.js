// One box that understands what somebody looks for.
//
// `anna@example.com` is a recipient, `from:anna@example.com` a sender, `@example.com` all recipients there, `from:<>` reports,
// thirteen letters and digits a queue ID, `<…@…>` a Message-ID; `provider:`, `state:`, `user:`, `domain:`, `older:2h` name the rest.

const ID = /^[0-9A-HJKMNP-TV-Z]{13}$/i;
const NAMES = {
	from: 'sender',
	sender: 'sender',
	to: 'recipient',
	recipient: 'recipient',
	provider: 'provider',
	state: 'state',
	user: 'user',
	domain: 'domain',
	id: 'id',
	'message-id': 'message_id',
	msgid: 'message_id',
	older: 'older_than',
};
const STATES = ['waiting', 'active', 'held'];

/** `filter`: for the queue; `events`: for the log; `id`: a message is meant; `wrong`: what was not understood. */
export function lookFor(words) {
	const filter = {};
	let id = null;
	let wrong = null;
	let plain = null;
	for (const word of words.trim().split(/\s+/).filter(Boolean)) {
		const [, name, value] = /^([a-z-]+):(.*)$/i.exec(word) || [];
		if (name && NAMES[name.toLowerCase()]) {
			const key = NAMES[name.toLowerCase()];
			if (!value) wrong = `After ${name}: a value is missing.`;
			else if (key === 'id') id = value.toUpperCase();
			else filter[key] = value;
		} else if (/^<[^<>\s]+>$/.test(word)) filter.message_id = word;
		else if (word === '<>') filter.sender = '<>';
		else if (/^@[^@\s]+$/.test(word)) filter.recipient = word;
		else if (/^[^@\s]+@[^@\s]+$/.test(word)) {
			filter.recipient = word;
			plain = word;
		} else if (ID.test(word)) id = word.toUpperCase();
		else if (STATES.includes(word.toLowerCase())) filter.state = word.toLowerCase();
		else if (/^[^@\s]+\.[^@\s]+$/.test(word)) filter.domain = word;
		else
			wrong = `“${word}” was not understood: write an address, @domain, a queue ID, a <Message-ID>, or from:, provider:, user:.`;
	}
	const { recipient, sender, provider, user, message_id: messageId, domain } = filter;
	const events = {
		recipient: recipient || (domain ? `@${domain}` : undefined),
		sender,
		provider,
		user,
		message_id: messageId,
		id: id || undefined,
	};
	return {
		filter,
		events: Object.fromEntries(Object.entries(events).filter(([, value]) => value !== undefined)),
		id,
		wrong,
		plain,
	};
}
