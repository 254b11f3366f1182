// weekdayRange, dateRange and timeRange, over the engine's own Date, which knows the local time zone.
// `host.now()` gives Unix milliseconds, `host.note(name, args, result)` writes the trace.
(function (host, scope) {
  "use strict";
  const DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
  const MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
  const LocalDate = Date;

  // The point in time in the zone the caller means, and the arguments without a final "GMT".
  function moment(args) {
    const gmt = args.length > 0 && String(args[args.length - 1]).toUpperCase() === "GMT";
    const now = new LocalDate(host.now());
    return {
      args: gmt ? args.slice(0, -1) : args,
      weekday: gmt ? now.getUTCDay() : now.getDay(),
      day: gmt ? now.getUTCDate() : now.getDate(),
      month: gmt ? now.getUTCMonth() : now.getMonth(),
      year: gmt ? now.getUTCFullYear() : now.getFullYear(),
      hour: gmt ? now.getUTCHours() : now.getHours(),
      minute: gmt ? now.getUTCMinutes() : now.getMinutes(),
      second: gmt ? now.getUTCSeconds() : now.getSeconds(),
    };
  }

  // Whether `at` lies between two points of a circle (or of a line, where wrapping makes no sense), ends included.
  function between(at, from, to, wraps) {
    if (from <= to) return from <= at && at <= to;
    return wraps && (at >= from || at <= to);
  }

  function weekdayRange(...all) {
    const now = moment(all);
    const days = now.args.map((day) => DAYS.indexOf(String(day).toUpperCase()));
    if (days.length < 1 || days.length > 2 || days.includes(-1)) return false;
    return between(now.weekday, days[0], days[days.length - 1], true);
  }

  // A day, month or year, told apart by its form.
  function part(value) {
    const month = MONTHS.indexOf(String(value).toUpperCase());
    if (month >= 0) return { kind: "month", value: month };
    const number = Number(value);
    if (!Number.isInteger(number) || number < 1) return { kind: "none", value: number };
    return { kind: number <= 31 ? "day" : "year", value: number };
  }

  function dateRange(...all) {
    const now = moment(all);
    const parts = now.args.map(part);
    const kinds = parts.map((one) => one.kind);
    const half = parts.length / 2;
    if (parts.length < 1 || parts.length > 6 || kinds.includes("none")) return false;
    const pair = Number.isInteger(half) && kinds.slice(0, half).join() === kinds.slice(half).join();
    const first = pair ? kinds.slice(0, half) : kinds;
    if (new Set(first).size !== first.length) return false;
    // One number per point, the year most significant; what is not named does not count.
    const number = (of) =>
      (first.includes("year") ? of.year * 10000 : 0) +
      (first.includes("month") ? of.month * 100 : 0) +
      (first.includes("day") ? of.day : 0);
    const point = (list) => number(Object.fromEntries(list.map((one) => [one.kind, one.value])));
    const from = point(pair ? parts.slice(0, half) : parts);
    const to = point(pair ? parts.slice(half) : parts);
    return between(number(now), from, to, !first.includes("year"));
  }

  // Both ends are included, as in Firefox: timeRange(9, 17) holds until 17:59:59.
  function timeRange(...all) {
    const now = moment(all);
    const n = now.args.map(Number);
    if (![1, 2, 4, 6].includes(n.length) || !n.every((one) => Number.isInteger(one) && one >= 0)) return false;
    if (n.length <= 2) return between(now.hour, n[0], n[n.length - 1], true);
    const seconds = (hour, minute, second) => (hour * 60 + minute) * 60 + second;
    const at = seconds(now.hour, now.minute, now.second);
    if (n.length === 4) return between(at, seconds(n[0], n[1], 0), seconds(n[2], n[3], 59), true);
    return between(at, seconds(n[0], n[1], n[2]), seconds(n[3], n[4], n[5]), true);
  }

  for (const inner of [weekdayRange, dateRange, timeRange]) {
    scope[inner.name] = function (...args) {
      const result = inner(...args);
      host.note(inner.name, args.join(", "), String(result));
      return result;
    };
  }
})
