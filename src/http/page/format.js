// Numbers, sizes, times and spans as people read them.
//
// Relative times follow the relay's clock, not this computer's: `setClock` learns the difference from each status.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
let offset = 0;

export function setClock(time) {
	const at = Date.parse(time);
	if (!Number.isNaN(at)) offset = at - Date.now();
}

export const now = () => Date.now() + offset;

export function number(n) {
	if (typeof n !== 'number' || !Number.isFinite(n)) return '–';
	return Math.abs(n) < 10 && !Number.isInteger(n) ? fine.format(n) : whole.format(n);
}

/** `count(1, 'message')` is `1 message`, `count(2, 'message')` is `2 messages`. */
export function count(n, noun, many = `${noun}s`) {
	return `${number(n)} ${n === 1 ? noun : many}`;
}

export function bytes(n) {
	if (typeof n !== 'number') return '–';
	const units = ['octets', 'KiB', 'MiB', 'GiB', 'TiB'];
	let at = 0;
	while (n >= 1024 && at < units.length - 1) {
		n /= 1024;
		at += 1;
	}
	return `${at === 0 ? whole.format(n) : fine.format(n)} ${units[at]}`;
}

/** A span of seconds with its two largest units: `5 h 20 min`. */
export function span(seconds) {
	if (typeof seconds !== 'number' || !Number.isFinite(seconds)) return '–';
	if (seconds < 0.95) return seconds > 0 ? `${Math.max(0.1, seconds).toFixed(1)} s` : '0 s';
	let rest = Math.round(seconds);
	const parts = [];
	for (const [unit, size] of [
		['d', 86400],
		['h', 3600],
		['min', 60],
		['s', 1],
	]) {
		const n = Math.floor(rest / size);
		if (n > 0) parts.push(`${whole.format(n)} ${unit}`);
		else if (parts.length) break;
		rest -= n * size;
		if (parts.length === 2) break;
	}
	return parts.join(' ');
}

export const perMinute = (rate) => (typeof rate === 'number' ? `${number(rate)}/min` : 'no limit known');

const pad = (n) => String(n).padStart(2, '0');
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** The time of day here; with the day where it is not today. */
export function clock(ms, { seconds = true } = {}) {
	const d = new Date(ms);
	if (Number.isNaN(d.getTime())) return '–';
	const time = `${pad(d.getHours())}:${pad(d.getMinutes())}${seconds ? `:${pad(d.getSeconds())}` : ''}`;
	if (d.toDateString() === new Date(now()).toDateString()) return time;
	const year = d.getFullYear() === new Date(now()).getFullYear() ? '' : ` ${d.getFullYear()}`;
	return `${d.getDate()} ${months[d.getMonth()]}${year} ${time}`;
}

export const day = (ms) => `${new Date(ms).getDate()} ${months[new Date(ms).getMonth()]}`;

export const utc = (ms) =>
	new Date(ms)
		.toISOString()
		.replace('T', ' ')
		.replace(/\.\d+Z$/, ' UTC');

/** `3 min ago`, `in 12 s`, `now`. */
export function relative(ms) {
	const seconds = (ms - now()) / 1000;
	if (Math.abs(seconds) < 1) return 'now';
	return seconds > 0 ? `in ${span(seconds)}` : `${span(-seconds)} ago`;
}

/** Words of weir with moments as they are written in the log: shown in the time of this place. */
export function local(text) {
	return String(text ?? '').replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, (time) => clock(Date.parse(time)));
}

export function zone() {
	const minutes = -new Date().getTimezoneOffset();
	const sign = minutes < 0 ? '−' : '+';
	return minutes === 0 ? 'UTC' : `UTC${sign}${pad(Math.floor(Math.abs(minutes) / 60))}:${pad(Math.abs(minutes) % 60)}`;
}

/** The beginning of a reply by which people know it: `421 RP-001`, `451 4.7.650`, `550 5.7.1 S3150`. */
export function replyLabel(reply, tag = null) {
	const found = /(?:^|[\s:])([2-5]\d\d)(?:[ -]+([245]\.\d{1,3}\.\d{1,3}))?/.exec(reply || '');
	const label = tag || (/\b(RP-\d{3}|SC-\d{3}|S\d{3,6}|IB\d{3}|AS\(\d+\)|ATTR\d+)\b/.exec(reply || '') || [])[1];
	return [found && found[1], found && found[2], label].filter(Boolean).join(' ') || null;
}
