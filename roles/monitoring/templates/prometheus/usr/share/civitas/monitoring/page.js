// SPDX-License-Identifier: GPL-3.0-or-later
"use strict";
// Everything that comes from Prometheus is put in as text, never as markup.

const MINUTE = 60, HOUR = 3600, DAY = 86400;
// What this host's own programs say of themselves is no host.
const AGENTS = 'job!~"prometheus|alertmanager|blackbox|alerts|probe"';
const QUERIES = {
  up: `max by (host) (up{${AGENTS}})`,
  cpu: "max by (host) (civitas_cpu_busy_ratio)",
  memory: "max by (host) (1 - civitas_memory_available_ratio)",
  load: "max by (host) (civitas_load_per_cpu)",
  disks: "max by (host, mountpoint) (civitas_mount_used_ratio)",
  updates: "max by (host) (civitas_updates_security_pending) > 0",
  reboot: "time() - max by (host) (civitas_reboot_required_time_seconds)",
  probes: "probe_success",
  took: "probe_duration_seconds",
  ends: "probe_ssl_earliest_cert_expiry - time()",
  available: "1 - sum by (probe) (sum_over_time(civitas:probe_down_seconds:5m[30d])) / sum by (probe) (sum_over_time(civitas:probe_measured_seconds:5m[30d]))",
  certificates: "civitas_certificate_not_after_timestamp_seconds - time()",
  backups: '{__name__=~"civitas_backup_[a-z_]*time_?stamp_seconds|civitas_backup_[a-z_]*time_seconds"}',
};
const RANGES = { cpuDay: QUERIES.cpu, memoryDay: QUERIES.memory, probesDay: "avg by (probe) (avg_over_time(probe_success[15m]))" };
let last = 0;

async function ask(path, parameters) {
  // With the origin, as browsers refuse what is relative to an address with a password.
  const answer = await fetch(`${location.origin}/api/v1/${path}?${new URLSearchParams(parameters)}`, { cache: "no-store", signal: AbortSignal.timeout(30000) });
  if (!answer.ok) throw new Error(`${path.split("_")[0]} was answered with ${answer.status}`);
  return (await answer.json()).data;
}

async function read() {
  const now = Math.floor(Date.now() / 1000), data = {};
  const questions = [["alerts", ask("alerts", {}).then((found) => found.alerts)]];
  for (const [name, query] of Object.entries(QUERIES)) questions.push([name, ask("query", { query }).then((found) => found.result)]);
  for (const [name, query] of Object.entries(RANGES)) {
    questions.push([name, ask("query_range", { query, start: now - DAY, end: now, step: 900 }).then((found) => found.result)]);
  }
  await Promise.all(questions.map(async ([name, question]) => { data[name] = await question; }));
  return data;
}

// --- words

function duration(seconds) {
  const size = Math.abs(seconds);
  if (size < 0.001) return "< 1 ms";
  if (size < 1) return `${Math.round(size * 1000)} ms`;
  if (size < 2 * MINUTE) return `${Math.round(size)} s`;
  if (size < 2 * HOUR) return `${Math.round(size / MINUTE)} min`;
  if (size < 2 * DAY) return `${Math.round(size / HOUR)} h`;
  return `${Math.floor(size / DAY)} days`;
}
const percent = (value) => `${(value * 100).toFixed(value < 0.0995 && value > 0 ? 1 : 0)} %`;
// Cut, not rounded: 99.996 % are not 100 %.
const share = (value) => `${(Math.floor(value * 1e5 + 1e-6) / 1e3).toFixed(value === 1 ? 0 : 2)} %`;
const number = (series) => (series ? Number(series.value[1]) : NaN);
const count = (many, word) => `${many} ${word}${many === 1 ? "" : "s"}`;
const clock = (date) => date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

// --- elements

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null));
  return made;
}

function line(title, value, text, severity) {
  const bar = element("div", `bar ${severity || ""}`, element("i"));
  // What is said in words beside it needs no second voice.
  bar.setAttribute("aria-hidden", "true");
  bar.firstChild.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
  return element("div", "line", element("span", "", title), element("span", `number ${severity || ""}`, text), bar);
}

function spark(title, series, write) {
  if (!series || series.values.length < 2) return null;
  const now = Date.now() / 1000, points = series.values.map(([time, value]) => [100 * (1 - (now - time) / DAY), Number(value)]);
  const values = points.map(([, value]) => value), least = Math.min(...values), top = Math.max(...values);
  // From nothing to the highest of the day; what that is stands beside it.
  const most = Math.max(top, 0.01);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${title}, last 24 hours: from ${write(least)} to ${write(top)}`);
  const y = (value) => (19 - 18 * Math.min(1, value / most)).toFixed(2);
  const path = points.map(([x, value], index) => {
    // Where nothing was measured, there is no line.
    const gap = index === 0 || x - points[index - 1][0] > 2.2;
    return `${gap ? "M" : "L"}${x.toFixed(2)} ${y(value)}`;
  }).join("");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return element("div", "line", element("span", "soft", `${title}, 24 h`), element("span", "soft number", `${write(least)} – ${write(top)}`), svg);
}

function table(titles, rows) {
  if (!rows.length) return null;
  const head = element("tr", "", ...titles.map((title) => { const cell = element("th", "", title); cell.scope = "col"; return cell; }));
  const body = rows.map((row) => element("tr", "", ...row.map((cell, index) => {
    const { text, className } = typeof cell === "object" ? cell : { text: cell, className: "" };
    const made = element("td", `${className || ""}${text === "–" ? " none" : ""}`, element("span", "", text));
    made.dataset.title = titles[index];
    return made;
  })));
  return element("div", "table", element("table", "", element("thead", "", head), element("tbody", "", ...body)));
}

function put(id, content, otherwise) {
  document.getElementById(id).replaceChildren(...(content ? [content].flat() : [element("p", "soft", otherwise)]));
}

// --- sections

// As Alertmanager does: who says more about the same silences who says less.
function isQuiet(alarm, others) {
  const same = (one, other) => Object.keys({ ...one, ...other }).every((name) => name === "alertname" || name === "severity" || one[name] === other[name]);
  return others.some((other) => ((other.annotations.inhibits || "").split(" ").includes(alarm.labels.alertname) && same(alarm.labels, other.labels))
    || (alarm.labels.alertname === "TargetDown" && other.labels.alertname === "HostSilent" && alarm.labels.host === other.labels.host)
    || (alarm.labels.alertname === "ProbeCertificateEndsSoon" && other.labels.alertname === "ProbeCertificateEnds" && alarm.labels.probe === other.labels.probe));
}

const RANK = { critical: 2, warning: 1 };
const worst = (alarms) => alarms.reduce((found, alarm) => (RANK[alarm.labels.severity] > (RANK[found] || 0) ? alarm.labels.severity : found), "");
const by = (series, labels) => series.find((item) => Object.entries(labels).every(([name, value]) => item.metric[name] === value));

function showAlarms(alarms) {
  const items = [...alarms].sort((one, other) => (RANK[other.labels.severity] || 0) - (RANK[one.labels.severity] || 0)
    || one.activeAt.localeCompare(other.activeAt)).map((alarm) => {
    const severity = alarm.labels.severity, since = new Date(alarm.activeAt);
    return element("li", severity,
      element("p", "", element("span", `word ${severity}`, severity === "critical" ? "Critical: " : "Warning: "), alarm.annotations.text || alarm.labels.alertname),
      element("p", "soft", `${alarm.labels.host || "all hosts"} · for ${duration(Date.now() / 1000 - since / 1000)}, since ${clock(since)} · what to do: docs/runbooks/${alarm.annotations.runbook || ""}`));
  });
  put("alarms", items.length ? element("ul", "alarms", ...items) : null, "None rings.");
}

function showHosts(data, alarms) {
  const cards = [...data.up].sort((one, other) => one.metric.host.localeCompare(other.metric.host)).map((series) => {
    const host = series.metric.host, own = alarms.filter((alarm) => alarm.labels.host === host), severity = worst(own);
    const here = { host }, isUp = number(series) === 1, lines = [];
    const cpu = by(data.cpu, here), memory = by(data.memory, here), load = by(data.load, here);
    for (const disk of data.disks.filter((item) => item.metric.host === host).sort((a, b) => a.metric.mountpoint.localeCompare(b.metric.mountpoint))) {
      const mount = disk.metric.mountpoint;
      lines.push(line(`Disk ${mount}`, number(disk), percent(number(disk)), worst(own.filter((alarm) => alarm.labels.mountpoint === mount))));
    }
    if (memory) lines.push(line("Memory", number(memory), percent(number(memory))));
    if (cpu) lines.push(line("Processor", number(cpu), percent(number(cpu))));
    if (load) lines.push(element("div", "line", element("span", "", "Load for each processor"), element("span", "number", number(load).toFixed(2))));
    lines.push(spark("Memory", by(data.memoryDay, here), percent), spark("Processor", by(data.cpuDay, here), percent));
    const updates = by(data.updates, here), reboot = by(data.reboot, here);
    if (updates) lines.push(element("p", "soft", `${count(number(updates), "security update")} to install`));
    if (reboot) lines.push(element("p", "soft", `wants a reboot for ${duration(number(reboot))}`));
    const word = own.length ? count(own.length, "alarm") : isUp ? "Well" : "Does not answer";
    return element("article", `card ${severity || (isUp ? "" : "critical")}`,
      element("div", "top", element("h3", "", host), element("span", severity || (isUp ? "good" : "critical"), isUp ? word : "Does not answer")), ...lines);
  });
  put("hosts", cards.length ? cards : null, "No host is asked yet.");
}

function showProbes(data) {
  const rows = [...data.probes].sort((one, other) => number(one) - number(other) || one.metric.probe.localeCompare(other.metric.probe)).map((series) => {
    const probe = { probe: series.metric.probe }, up = number(series) === 1;
    const ends = by(data.ends, probe), available = by(data.available, probe), day = by(data.probesDay, probe);
    const average = day ? day.values.reduce((sum, [, value]) => sum + Number(value), 0) / day.values.length : NaN;
    return [
      series.metric.probe, series.metric.target,
      { text: up ? "answers" : "DOES NOT ANSWER", className: up ? "good" : "critical" },
      { text: up ? duration(number(by(data.took, probe))) : "–", className: "number" },
      { text: day ? share(average) : "–", className: "number" },
      { text: available && number(available) >= 0 ? share(number(available)) : "–", className: "number" },
      { text: ends ? (number(ends) > 0 ? `${duration(number(ends))} left` : "ENDED") : "–", className: "number" },
    ];
  });
  put("probes", table(["Probe", "Target", "State", "Took", "Up in 24 h", "Up in 30 days", "Certificate"], rows), "Nothing is probed.");
}

function showCertificates(series) {
  const rows = [...series].sort((one, other) => number(one) - number(other)).map((item) => {
    const left = number(item), { host, name, place } = item.metric;
    return [host || "", name || "", place || "–", { text: left > 0 ? `${duration(left)} left` : `ENDED ${duration(left)} ago`, className: left > 0 ? "number" : "number critical" }];
  });
  put("certificates", table(["Host", "Certificate", "Where", "Valid"], rows), "None is measured.");
}

function showBackups(series) {
  const words = (metric) => Object.entries(metric).filter(([name]) => !["__name__", "host", "job", "instance"].includes(name)).map(([, value]) => value).join(", ");
  const rows = [...series].sort((one, other) => number(one) - number(other)).map((item) => [
    item.metric.host || "", item.metric.__name__.replace(/^civitas_backup_|_?(time_?stamp|time)_seconds$/g, "").replaceAll("_", " "), words(item.metric) || "–",
    { text: `${duration(item.value[0] - number(item))} ago`, className: "number" }]);
  put("backups", table(["Host", "What", "Of", "When"], rows), "None is measured.");
}

function show(data) {
  const firing = data.alerts.filter((alert) => alert.state === "firing");
  const alarms = firing.filter((alert) => alert.labels.alertname !== "DeadMan" && !isQuiet(alert, firing));
  const critical = alarms.filter((alarm) => alarm.labels.severity === "critical").length, others = alarms.length - critical;
  const state = document.getElementById("state");
  state.className = worst(alarms) || "good";
  state.textContent = alarms.length ? [critical ? `${critical} critical` : "", others ? count(others, "warning") : ""].filter(Boolean).join(", ") : "All is well";
  document.title = `${alarms.length ? `(${alarms.length}) ` : ""}Monitoring`;
  showAlarms(alarms);
  showHosts(data, alarms);
  showProbes(data);
  showBackups(data.backups);
  showCertificates(data.certificates);
  // It rings always; when it does not, neither do others.
  return firing.some((alert) => alert.labels.alertname === "DeadMan") ? "" : "The heartbeat is silent: rules were not evaluated yet, or alarms do not leave this host.";
}

async function refresh() {
  let problem = "";
  try {
    problem = show(await read());
    last = Date.now();
    document.getElementById("time").textContent = `as of ${clock(new Date(last))}`;
  } catch (error) {
    problem = `Prometheus does not answer: ${error.message}. ${last ? `What you see is of ${clock(new Date(last))}.` : "Nothing is known."}`;
    const state = document.getElementById("state");
    state.className = "critical";
    state.textContent = "Nothing is known";
  }
  const box = document.getElementById("problem");
  box.hidden = !problem;
  box.textContent = problem;
}

refresh();
setInterval(refresh, MINUTE * 1000);
