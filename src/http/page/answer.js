// Is my mail going out, and if not, why? One sentence out of a status.
//
// Pure: a status and the time in, a level (`good`, `warn`, `bad`, `calm`), a word and sentences out.

import { clock, count, number, perMinute, relative, replyLabel, span } from './format.js';

const STUCK = ['paused', 'blocked', 'stopped', 'probing'];
/** Longer than this until all is gone is worth saying. */
const LONG_MS = 3600000;

/** A lane itself, not a pause that stands beside the lanes. */
export const isLane = (lane) => lane.domain === null && lane.provider !== '*';
/** Stopped by a person: no time ends it. */
export const isByHand = (lane) =>
	lane.state === 'paused' && !lane.until && / by an operator|^by an operator/.test(lane.reason || '');
export const isEverything = (lane) => lane.domain === null && lane.provider === '*';

/** The providers of a status, each with its lanes; what waits is counted by provider, so it is taken once. */
export function byProvider(lanes) {
	const found = new Map();
	for (const lane of lanes.filter(isLane)) {
		if (!found.has(lane.provider)) found.set(lane.provider, []);
		found.get(lane.provider).push(lane);
	}
	return [...found]
		.map(([name, members]) => ({
			name,
			lanes: members,
			waiting: Math.max(...members.map((lane) => lane.waiting)),
			stuck: members.every((lane) => STUCK.includes(lane.state)),
			worst: members.find((lane) => STUCK.includes(lane.state)) || members[0],
		}))
		.sort((a, b) => b.stuck - a.stuck || b.waiting - a.waiting || a.name.localeCompare(b.name));
}

/** Why a lane stands still, and until when, as the end of a sentence. */
export function whyStuck(lane, now) {
	const label = lane.tag && (lane.reason || '').includes(lane.tag) ? replyLabel(lane.reason, lane.tag) : replyLabel(lane.reason);
	const said = label ? ` (${label})` : '';
	const until = lane.until ? Date.parse(lane.until) : null;
	const next = until && until > now ? `; one message asks at ${clock(until)}, ${relative(until)}` : '';
	const ago = lane.since ? ` ${relative(Date.parse(lane.since))}` : '';
	if (isByHand(lane))
		return `is paused by hand${ago ? ` since ${clock(Date.parse(lane.since))}` : ''}; it goes on when somebody resumes it`;
	switch (lane.state) {
		case 'paused':
			return `put us off${ago}${said}${next || '; one message is about to ask'}`;
		case 'probing':
			return `put us off${ago}${said}; one message is asking now whether it takes mail again`;
		case 'blocked':
			return `blocks our address${ago ? ` since ${clock(Date.parse(lane.since))}` : ''}${said}${next}`;
		default:
			return `is stopped: ${lane.reason || 'an operator or the configuration stopped it'}`;
	}
}

export function answer(status, now) {
	const { relay, lanes } = status;
	const providers = byProvider(lanes);
	const rest = relay.waiting + relay.active;
	const waits = count(rest, 'delivery', 'deliveries');
	const notes = [];
	if (relay.held > 0)
		notes.push(
			`${count(relay.held, 'delivery', 'deliveries')} ${relay.held === 1 ? 'is' : 'are'} held by hand until somebody releases ${relay.held === 1 ? 'it' : 'them'}.`,
		);
	if (status.stopping) notes.push('The relay is stopping: nothing new begins.');
	if (status.lanes_left_off) notes.push('There are more lanes than this page shows; weir status has them all.');
	if (relay.reading_backlog) notes.push('The queue of the last run is still being read: the counts grow until that is done.');

	if (relay.spool_fault)
		return {
			level: 'bad',
			word: 'No',
			text: `The disk fails, so nothing is taken and nothing is sent: ${relay.spool_fault}`,
			notes,
		};
	const all = lanes.find(isEverything);
	if (all) {
		const since = all.since ? ` since ${clock(Date.parse(all.since))}` : '';
		return {
			level: 'bad',
			word: 'No',
			text: `All mail is paused by hand${since}; ${waits} wait${rest === 1 ? 's' : ''}. It goes on when somebody resumes it.`,
			notes,
			everything: true,
		};
	}
	if (!relay.ready)
		return {
			level: 'bad',
			word: 'No',
			text: `The relay is not ready${relay.problems.length ? `: ${relay.problems[0]}` : '.'}`,
			notes,
		};
	if (rest === 0) {
		return {
			level: 'good',
			word: 'Yes',
			text: relay.held > 0 ? 'All that may go has gone.' : 'Nothing waits: all that was handed in has been dealt with.',
			notes,
		};
	}

	const stuck = providers.filter((p) => p.stuck && p.waiting > 0);
	const held = stuck.reduce((sum, p) => sum + p.waiting, 0);
	const free = providers.filter((p) => !p.stuck && (p.waiting > 0 || p.lanes.some((lane) => lane.connections > 0)));
	const slow = free
		.map((p) => ({ ...p, empty: Math.max(...p.lanes.map((l) => (l.empty_at ? Date.parse(l.empty_at) : 0))) }))
		.filter((p) => p.empty - now > LONG_MS)
		.sort((a, b) => b.empty - a.empty)[0];
	if (stuck.length > 0) {
		const first = stuck[0];
		const why = `${first.name} ${whyStuck(first.worst, now)}`;
		const more = stuck.slice(1).map((p) => p.name);
		if (more.length) notes.push(`Also held up: ${more.join(', ')}.`);
		if (slow)
			notes.push(
				`${number(slow.waiting)} wait for ${slow.name}, which is slow: done about ${clock(slow.empty, { seconds: false })}, ${relative(slow.empty)}.`,
			);
		if (free.length === 0 && held >= rest * 0.95) {
			return {
				level: 'bad',
				word: 'No',
				text: `Nothing goes out just now: ${why}. ${count(held, 'delivery waits', 'deliveries wait')}.`,
				notes,
				provider: first.name,
			};
		}
		return {
			level: 'warn',
			word: 'In part',
			text: `${count(held, 'delivery waits', 'deliveries wait')} for ${first.name}${more.length ? ' and others' : ''}: it ${whyStuck(first.worst, now)}. Other mail goes out.`,
			notes,
			provider: first.name,
		};
	}
	if (slow) {
		const pace = slow.lanes[0].pace;
		return {
			level: 'warn',
			word: 'Yes, slowly',
			provider: slow.name,
			notes,
			text: `${number(slow.waiting)} wait for ${slow.name}, which takes ${typeof pace === 'number' ? perMinute(pace) : 'little'}: done about ${clock(slow.empty, { seconds: false })}, ${relative(slow.empty)}.`,
		};
	}
	if (providers.length === 0) {
		return {
			level: 'calm',
			word: 'Starting',
			text: `${waits} wait${rest === 1 ? 's' : ''} for a route or for the first connection.`,
			notes,
		};
	}
	const domains = lanes.filter((lane) => lane.domain !== null && lane.waiting > 0);
	if (domains.length > 0) {
		const waiting = domains.reduce((sum, lane) => sum + lane.waiting, 0);
		const others = rest > waiting ? ' Other mail goes out.' : '';
		return {
			level: 'warn',
			word: 'In part',
			notes,
			text: `Mail to ${domains.map((lane) => lane.domain).join(', ')} is paused by hand: ${count(waiting, 'delivery waits', 'deliveries wait')} until somebody resumes it.${others}`,
		};
	}
	const last = Math.max(0, ...free.flatMap((p) => p.lanes.map((l) => (l.empty_at ? Date.parse(l.empty_at) : 0))));
	const lanesWait = providers.reduce((sum, p) => sum + p.waiting, 0);
	const retry = Math.max(0, relay.waiting - lanesWait - relay.unrouted);
	if (retry > 0)
		notes.push(`${count(retry, 'delivery waits', 'deliveries wait')} for ${retry === 1 ? 'its' : 'their'} next try.`);
	const oldest = relay.oldest ? (now - Date.parse(relay.oldest)) / 1000 : 0;
	if (oldest > 3600) notes.push(`The oldest came ${span(oldest)} ago.`);
	return {
		level: 'good',
		word: 'Yes',
		notes,
		text: `Mail is going out. ${waits} ${rest === 1 ? 'is' : 'are'} in the queue${last > now ? `, which is empty about ${clock(last, { seconds: false })}, ${relative(last)}` : ''}.`,
	};
}
