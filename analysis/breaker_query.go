package analysis

import (
	"fmt"
	"math"
	"regexp"
	"slices"
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
	envoyEjections = "envoy_cluster_outlier_detection_ejections_active"

	flagOverflow   = "UO"
	flagNoEndpoint = "UH"
	flagRetryLimit = "URX"
)

// lookAgo is how long before a window a counter's last value is looked for.
const lookAgo = 5 * time.Minute

// lookup makes the parts of a breaker's query for one time.
type lookup struct {
	watch pipeline.BreakerWatch
	at    time.Time
}

// parts are the queries by part; none when nothing can have been seen yet.
func (l lookup) parts() map[string]string {
	parts := map[string]string{}
	window := l.window(l.watch.Since)
	if window < time.Second {
		return parts
	}
	host, watches := hostMatchers(l.watch), func(s v1.BreakerSignal) bool { return slices.Contains(l.watch.Signals, s) }
	var flags []string
	for signal, flag := range map[v1.BreakerSignal]string{v1.SignalOverflow: flagOverflow, v1.SignalRetryLimit: flagRetryLimit} {
		if watches(signal) {
			flags = append(flags, flag)
		}
	}
	if len(flags) > 0 {
		slices.Sort(flags)
		lost := fmt.Sprintf("%s{%s,%s}", requests, host, flagMatcher(flags...))
		parts[partRequests] = "sum by (response_flags, destination_version, destination_workload) (" + l.grown(lost, window) + ")"
	}
	if watches(v1.SignalOverflow) {
		parts[partOverflow] = "sum(" + l.grown(envoyOverflows+"{"+clusterMatcher(l.watch)+"}", window) + ")"
	}
	if watches(v1.SignalEjection) {
		parts[partEjection] = "sum(" + l.risen(envoyEjections+"{"+clusterMatcher(l.watch)+"}", window) + ")"
		if since := l.watch.HostSince; !since.IsZero() && l.window(since) >= time.Second {
			parts[partHost] = l.lost(l.window(since))
			parts[partElsewhere] = fmt.Sprintf("sum(max_over_time(%s{%s}[%s]))",
				envoyEjections, otherClusters(l.watch), promDuration(l.window(since)))
		}
	}
	parts[partSeen] = "group(" + requests + "{" + host + "})"
	return parts
}

// window is the watch's, cut where it would reach back beyond a time.
func (l lookup) window(since time.Time) time.Duration {
	return min(l.watch.Window, l.at.Sub(since).Truncate(time.Millisecond))
}

// lost counts the requests to the host that found no endpoint.
func (l lookup) lost(window time.Duration) string {
	return "sum(" + l.grown(requests+"{"+hostMatchers(l.watch)+","+flagMatcher(flagNoEndpoint)+"}", window) + ")"
}

// lostBefore counts, at the start of the run, the requests that found no endpoint in the window before it.
func lostBefore(watch pipeline.BreakerWatch) string {
	watch.AfterFault = false
	return lookup{watch: watch, at: watch.RunStart}.lost(watch.Window)
}

// grown is by how much each series of a counter grew in the window, exactly: increase() would extrapolate, and not count the
// first value of a series, so not the first overflow of a version. A series that was not there before, and one that began anew,
// grew from 0; that is believed only if Prometheus was scraping at the window's start.
func (l lookup) grown(series string, window time.Duration) string {
	w := promDuration(window)
	return fmt.Sprintf("(last_over_time(%[1]s[%[2]s]) unless present_over_time(%[1]s[%[3]s] offset %[2]s) and on() count(up offset %[2]s))"+
		" or (last_over_time(%[1]s[%[2]s]) and resets(%[1]s[%[2]s]) > 0)"+
		" or clamp_min(last_over_time(%[1]s[%[2]s]) - (%[4]s), 0)", series, w, promDuration(lookAgo), l.base(series, window))
}

// risen is by how much each series of a gauge rose in the window above what it was before.
func (l lookup) risen(series string, window time.Duration) string {
	w := promDuration(window)
	return fmt.Sprintf("(max_over_time(%[1]s[%[2]s]) unless present_over_time(%[1]s[%[3]s] offset %[2]s) and on() count(up offset %[2]s))"+
		" or clamp_min(max_over_time(%[1]s[%[2]s]) - (%[4]s), 0)", series, w, promDuration(lookAgo), l.base(series, window))
}

// base is a series' value at the window's start: the last one before it. After a fault only values count that are not older than
// its end, since what the fault did is scraped late; the first value in the window has to do until there are any.
func (l lookup) base(series string, window time.Duration) string {
	first := fmt.Sprintf("min_over_time(%s[%s])", series, promDuration(window))
	ago := lookAgo
	if l.watch.AfterFault {
		ago = min(ago, l.at.Add(-window).Sub(l.watch.Since).Truncate(time.Millisecond))
	}
	if ago <= 0 {
		return first
	}
	return fmt.Sprintf("last_over_time(%s[%s] offset %s) or %s", series, promDuration(ago), promDuration(window), first)
}

// hostMatchers select the requests to the host as its callers' proxies report them: a lost one has no other witness.
func hostMatchers(w pipeline.BreakerWatch) string {
	return fmt.Sprintf("reporter=%q,destination_service_name=%q,destination_service_namespace=%q",
		"source", serviceName(w.Host, w.Namespace), w.Namespace)
}

// flagMatcher selects by response flags, which come joined.
func flagMatcher(flags ...string) string {
	return fmt.Sprintf("response_flags=~%q", "(.*,)?("+strings.Join(flags, "|")+")(,.*)?")
}

// clusterMatcher selects the canary's clusters, or all of the host's, in any proxy: outbound|9080|v3|reviews.bookinfo.svc.cluster.local,
// in newer releases with a suffix after a semicolon.
func clusterMatcher(w pipeline.BreakerWatch) string {
	if w.Scope == v1.BreakerHost {
		return fmt.Sprintf("cluster_name=~%q", clusters(w, anySubset))
	}
	return fmt.Sprintf("cluster_name=~%q", clusters(w, regexp.QuoteMeta(w.Subset)))
}

// otherClusters selects all of the host's clusters but the canary's.
func otherClusters(w pipeline.BreakerWatch) string {
	return fmt.Sprintf("cluster_name=~%q,cluster_name!~%q", clusters(w, anySubset), clusters(w, regexp.QuoteMeta(w.Subset)))
}

const anySubset = "[^|]*"

func clusters(w pipeline.BreakerWatch, subset string) string {
	return `outbound\|[0-9]+\|` + subset + `\|` + regexp.QuoteMeta(v1.HostKey(w.Host, w.Namespace)) + `(;.*)?`
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
		if w.Scope != v1.BreakerHost && !ofCanary(sample.Metric, w.Canary) {
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
func ofCanary(metric model.Metric, canary pipeline.GateTarget) bool {
	version, workload := string(metric["destination_version"]), string(metric["destination_workload"])
	return (canary.Labels["version"] != "" && version == canary.Labels["version"]) || (canary.Workload != "" && workload == canary.Workload)
}
