package analysis

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// The parts of a breaker's query, told apart by the label part of what they return.
const (
	partLabel = "part"
	// partRequests counts the canary's or the host's lost requests by flags, version and workload.
	partRequests = "requests"
	// partHost counts requests that found no endpoint, of which no version is told.
	partHost = "host"
	// partOverflow and partEjection are Envoy's own statistics of the canary's clusters.
	partOverflow = "overflow"
	partEjection = "ejection"
	// partElsewhere counts endpoints of the host's other clusters that Envoy ejected: they lose requests too.
	partElsewhere = "elsewhere"
	// partSeen is there if the host's callers report anything at all.
	partSeen = "seen"
)

const (
	// Envoy's own, in Istio's Prometheus form; proxies expose them where proxyStatsMatcher includes them.
	envoyOverflows = "envoy_cluster_upstream_rq_pending_overflow"
	// envoyRefused counts connections that found no place. Of HTTP it tells nothing: requests wait, or share one.
	envoyRefused   = "envoy_cluster_upstream_cx_overflow"
	envoyEjections = "envoy_cluster_outlier_detection_ejections_active"

	flagOverflow   = "UO"
	flagNoEndpoint = "UH"
	flagRetryLimit = "URX"
)

// What Istio tells of connections that are not HTTP. One that is lost is closed at once; flags are known when it is.
const (
	connectionsOpened = "istio_tcp_connections_opened_total"
	connectionsClosed = "istio_tcp_connections_closed_total"
)

// sources are the metrics that tell of a host's traffic.
type sources struct {
	// lost has the response flags, seen is there as soon as there is any traffic, and overflows is Envoy's own.
	lost, seen, overflows string
	// versions: lost tells the version or workload of an overflow. A connection is refused before Envoy picks an endpoint.
	versions bool
}

func sourcesOf(w pipeline.BreakerWatch) sources {
	if w.Protocol == v1.ProtocolTCP || w.Protocol == v1.ProtocolTLS {
		return sources{lost: connectionsClosed, seen: connectionsOpened, overflows: envoyRefused}
	}
	return sources{lost: requests, seen: requests, overflows: envoyOverflows, versions: true}
}

const (
	// lookAgo is how long before a window a counter's last value is looked for.
	lookAgo = 5 * time.Minute
	// slowestScrape is the longest time between scrapes that is reckoned with.
	slowestScrape = time.Minute
	// scrapeDelay is how long after its time a value may come in.
	scrapeDelay = 2 * time.Second
	// maxReach bounds how far a look reaches back; no window is longer.
	maxReach = time.Hour
)

// lookup makes the parts of a breaker's query for one time.
type lookup struct {
	watch pipeline.BreakerWatch
	at    time.Time
	// answered is when Prometheus last answered, and hostTaken since when HostSince is as it is.
	answered, hostTaken time.Time
}

// stretch is the time in which a part counts, up to that of the lookup.
type stretch struct {
	since  time.Time
	window time.Duration
	// late: what happened before since may be scraped after it.
	late bool
}

// own is the stretch of what is told of the canary itself.
func (l lookup) own() stretch { return l.stretch(l.watch.Since, l.watch.Aftermath) }

// host is the stretch of lost requests that name no version. What came before this process began to count them, be it that
// it was not there or that stable had no endpoint, is not the canary's.
func (l lookup) host() stretch {
	if l.watch.Scope != v1.BreakerHost && l.hostTaken.Sub(l.watch.HostSince) > 2*scrapeDelay {
		return l.stretch(l.hostTaken, true)
	}
	return l.stretch(l.watch.HostSince, l.watch.Aftermath)
}

func (l lookup) stretch(since time.Time, late bool) stretch {
	return stretch{since, min(l.reach(), l.at.Sub(since).Truncate(time.Millisecond)), late}
}

// reach is how far back a look goes at most: the watch's window. Where one is too many, it goes back to the last answer, so that
// nothing slips through while Prometheus is away.
func (l lookup) reach() time.Duration {
	if l.watch.MaxTrips > 0 || l.answered.IsZero() {
		return l.watch.Window
	}
	return max(l.watch.Window, min(l.at.Sub(l.answered).Truncate(time.Second)+scrapeDelay, maxReach))
}

// parts are the queries by part.
func (l lookup) parts() map[string]string {
	parts := map[string]string{}
	own, byHost, from := l.own(), l.host(), sourcesOf(l.watch)
	host, watches := hostMatchers(l.watch, hostsInScope(l.watch)), func(s v1.BreakerSignal) bool { return slices.Contains(l.watch.Signals, s) }
	var flags []string
	for signal, flag := range map[v1.BreakerSignal]string{v1.SignalOverflow: flagOverflow, v1.SignalRetryLimit: flagRetryLimit} {
		if watches(signal) {
			flags = append(flags, flag)
		}
	}
	if len(flags) > 0 {
		slices.Sort(flags)
		lost := fmt.Sprintf("%s{%s,%s}", from.lost, host, flagMatcher(flags...))
		parts[partRequests] = "sum by (response_flags, destination_version, destination_workload, destination_canonical_revision) (" + l.grown(lost, own) + ")"
	}
	if watches(v1.SignalOverflow) {
		parts[partOverflow] = "sum(" + l.grown(from.overflows+"{"+clusterMatcher(l.watch)+"}", own) + ")"
	}
	if watches(v1.SignalEjection) {
		parts[partEjection] = "sum(" + l.risen(envoyEjections+"{"+clusterMatcher(l.watch)+"}", own) + ")"
		if !l.watch.HostSince.IsZero() && byHost.window >= time.Second {
			parts[partHost] = l.lost(byHost)
			parts[partElsewhere] = fmt.Sprintf("sum(max_over_time(%s{%s}[%s]))",
				envoyEjections, otherClusters(l.watch), promDuration(byHost.window))
		}
	}
	parts[partSeen] = "group(" + from.seen + "{" + hostMatchers(l.watch, allHosts(l.watch)) + "})"
	return parts
}

// lost counts the requests to the host that found no endpoint.
func (l lookup) lost(s stretch) string {
	return "sum(" + l.grown(sourcesOf(l.watch).lost+"{"+hostMatchers(l.watch, hostsInScope(l.watch))+","+flagMatcher(flagNoEndpoint)+"}", s) + ")"
}

// lostBefore counts, at the start of the run, the requests that found no endpoint in the window before it.
func lostBefore(watch pipeline.BreakerWatch) string {
	return lookup{watch: watch, at: watch.RunStart}.lost(stretch{window: watch.Window})
}

// grown is by how much each series of a counter grew in a stretch, exactly: increase() would extrapolate, and not count the
// first value of a series, so not the first overflow of a version. A series that was not there before, and one that began anew,
// grew from 0.
func (l lookup) grown(series string, s stretch) string {
	last := fmt.Sprintf("last_over_time(%s[%s])", series, promDuration(s.window))
	return fmt.Sprintf("%[1]s(%[2]s and resets(%[3]s[%[4]s]) > 0) or %[2]s - (%[5]s) >= 0 or %[2]s",
		l.born(last, series, s), last, series, promDuration(s.window), l.base(series, s))
}

// risen is by how much each series of a gauge rose in a stretch above what it was before.
func (l lookup) risen(series string, s stretch) string {
	highest := fmt.Sprintf("max_over_time(%s[%s])", series, promDuration(s.window))
	return fmt.Sprintf("%sclamp_min(%s - (%s), 0)", l.born(highest, series, s), highest, l.base(series, s))
}

// born is the first operand of an or: the value of series that were not there before the stretch. That they were not is believed
// only if Prometheus was scraping at its start, and has scraped everything since what happened before may come late.
func (l lookup) born(value, series string, s stretch) string {
	if s.late && l.beforeWindow(s) < slowestScrape {
		return ""
	}
	w := promDuration(s.window)
	return fmt.Sprintf("(%s unless present_over_time(%s[%s] offset %s) and on() count(up offset %[4]s)) or ", value, series, promDuration(lookAgo), w)
}

// base is a series' value at the window's start: the last one before it. Where what happened before the stretch is scraped late,
// only values since then count; the first value in the window has to do until there are any.
func (l lookup) base(series string, s stretch) string {
	first := fmt.Sprintf("min_over_time(%s[%s])", series, promDuration(s.window))
	ago := lookAgo
	if s.late {
		ago = min(ago, l.beforeWindow(s))
	}
	if ago <= 0 {
		return first
	}
	return fmt.Sprintf("last_over_time(%s[%s] offset %s) or %s", series, promDuration(ago), promDuration(s.window), first)
}

// beforeWindow is how long a stretch had lasted when its window began.
func (l lookup) beforeWindow(s stretch) time.Duration {
	return l.at.Add(-s.window).Sub(s.since).Truncate(time.Millisecond)
}

// hostMatchers select the requests to hosts as their callers' proxies report them: a lost one has no other witness.
func hostMatchers(w pipeline.BreakerWatch, hosts []string) string {
	if len(hosts) == 1 {
		return fmt.Sprintf("reporter=%q,destination_service_name=%q,destination_service_namespace=%q",
			"source", serviceName(hosts[0], w.Namespace), w.Namespace)
	}
	var names []string
	for _, host := range hosts {
		names = append(names, regexp.QuoteMeta(serviceName(host, w.Namespace)))
	}
	return fmt.Sprintf("reporter=%q,destination_service_name=~%q,destination_service_namespace=%q", "source", strings.Join(names, "|"), w.Namespace)
}

// allHosts are the Rollout's, and the one that the canary may have of its own.
func allHosts(w pipeline.BreakerWatch) []string {
	if w.Canary.Host == "" || v1.HostKey(w.Canary.Host, w.Namespace) == v1.HostKey(w.Host, w.Namespace) {
		return []string{w.Host}
	}
	return []string{w.Host, w.Canary.Host}
}

// hostsInScope are those of allHosts whose lost requests may count: where the canary has a host of its own, that alone.
func hostsInScope(w pipeline.BreakerWatch) []string {
	if hosts := allHosts(w); w.Scope == v1.BreakerHost || len(hosts) == 1 {
		return hosts
	}
	return []string{w.Canary.Host}
}

// flagMatcher selects by response flags, which come joined.
func flagMatcher(flags ...string) string {
	return fmt.Sprintf("response_flags=~%q", "(.*,)?("+strings.Join(flags, "|")+")(,.*)?")
}

// clusterMatcher selects the canary's clusters, or all of the host's, in any proxy: outbound|9080|v3|reviews.bookinfo.svc.cluster.local,
// in newer releases with a suffix after a semicolon.
func clusterMatcher(w pipeline.BreakerWatch) string {
	if w.Scope == v1.BreakerHost {
		return fmt.Sprintf("cluster_name=~%q", clusters(w, anyPort, anySubset))
	}
	return fmt.Sprintf("cluster_name=~%q", canaryClusters(w))
}

// otherClusters selects all of the host's clusters but the canary's.
func otherClusters(w pipeline.BreakerWatch) string {
	return fmt.Sprintf("cluster_name=~%q,cluster_name!~%q", clusters(w, anyPort, anySubset), canaryClusters(w))
}

const (
	anyPort   = "[0-9]+"
	anySubset = "[^|]*"
)

// canaryClusters are the canary's alone: where stable is on another port of the host, those of its port.
func canaryClusters(w pipeline.BreakerWatch) string {
	port := anyPort
	if w.Canary.SharesHost {
		port = strconv.FormatUint(uint64(w.Canary.Port), 10)
	}
	return clusters(w, port, regexp.QuoteMeta(w.Subset))
}

func clusters(w pipeline.BreakerWatch, port, subset string) string {
	return `outbound\|` + port + `\|` + subset + `\|` + anyOf(w) + `(;.*)?`
}

// anyOf matches the names in full of the hosts that count.
func anyOf(w pipeline.BreakerWatch) string {
	var names []string
	for _, host := range hostsInScope(w) {
		names = append(names, regexp.QuoteMeta(v1.HostKey(host, w.Namespace)))
	}
	if len(names) == 1 {
		return names[0]
	}
	return "(" + strings.Join(names, "|") + ")"
}

// joined asks for all parts at once.
func joined(parts map[string]string) string {
	var queries []string
	for _, part := range []string{partRequests, partHost, partOverflow, partEjection, partElsewhere, partSeen} {
		if query, ok := parts[part]; ok {
			queries = append(queries, fmt.Sprintf(`label_replace(%s, %q, %q, "", "")`, query, partLabel, part))
		}
	}
	return strings.Join(queries, " or ")
}

// counts are what an answer says of each part. Numbers that are none are left out.
type counts struct {
	// flagged are the canary's lost requests by flag, or the whole host's.
	flagged map[string]float64
	// total of the other parts; absent where nothing reports them.
	total map[string]float64
}

// readCounts sorts an answer. It is false for one that is no vector.
func readCounts(answer model.Value, w pipeline.BreakerWatch) (counts, bool) {
	out := counts{flagged: map[string]float64{}, total: map[string]float64{}}
	vector, ok := answer.(model.Vector)
	if answer != nil && !ok {
		return out, false
	}
	for _, sample := range vector {
		if sample == nil || sample.Histogram != nil || math.IsNaN(float64(sample.Value)) || math.IsInf(float64(sample.Value), 0) {
			continue
		}
		value, part := float64(sample.Value), string(sample.Metric[partLabel])
		if part != partRequests {
			out.total[part] += value
			continue
		}
		if w.Scope != v1.BreakerHost && !ofCanary(sample.Metric, w) {
			continue
		}
		for flag := range strings.SplitSeq(string(sample.Metric["response_flags"]), ",") {
			out.flagged[flag] += value
		}
	}
	return out, true
}

// ofCanary tells whether a lost request was for the canary. On an overflow the endpoint is known, of which Istio knows the
// workload only; the version is told where a response came first.
func ofCanary(metric model.Metric, w pipeline.BreakerWatch) bool {
	canary := w.Canary
	if canary.Host != "" && !canary.SharesHost {
		return true // the requests are those to its host
	}
	if revision := canonicalRevision(canary); revision != "" && !isService(w.Host, w.Namespace) {
		return string(metric["destination_canonical_revision"]) == revision
	}
	version, workload := string(metric["destination_version"]), string(metric["destination_workload"])
	return (canary.Labels["version"] != "" && version == canary.Labels["version"]) || (canary.Workload != "" && workload == canary.Workload)
}
