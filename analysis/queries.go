package analysis

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

const (
	// requests and durations are Istio's standard metrics; durations are in milliseconds.
	requests  = "istio_requests_total"
	durations = "istio_request_duration_milliseconds_bucket"
	// notServerFault leaves out what a server did wrong. Over HTTP: 5xx; response_code 0 is a client that went away.
	// Over gRPC, where errors come with HTTP 200, the codes that blame the server: UNKNOWN, DEADLINE_EXCEEDED,
	// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
	notServerFault = `response_code!~"5..",grpc_response_status!~"2|4|12|13|14|15"`
	// memory is how far back a series is looked for before it counts as new: beyond a few failed scrapes.
	memory = "5m"
	// defaultQuantile of latency.
	defaultQuantile = "0.99"
)

// gateQuery is what a gate asks Prometheus.
type gateQuery struct {
	// value yields the value that is judged: shares from 0 to 1, latency in seconds.
	value string
	// count yields the canary's requests in the window; empty when the gate does not need to know.
	count string
}

// makeQuery renders a gate's queries; an error tells the user what to change.
func makeQuery(g pipeline.GateWatch) (gateQuery, error) {
	if g.Query != "" {
		value, err := renderQuery(g)
		return gateQuery{value: value}, err
	}
	if g.Window <= 0 {
		return gateQuery{}, fmt.Errorf("gate %s: window: %s; the metric %s needs a positive one", g.Name, g.Window, g.Metric)
	}
	canary, err := canaryMatchers(g)
	if err != nil {
		return gateQuery{}, err
	}
	selections := append([]string{canary}, versionless(g, canary)...)
	value, err := builtIn(g, selections)
	if err != nil {
		return gateQuery{}, err
	}
	query := gateQuery{value: value}
	if g.MinRequests > 0 {
		query.count = fmt.Sprintf("sum(%s) or vector(0)", growths(requests, selections, "", g.Window))
	}
	return query, nil
}

func builtIn(g pipeline.GateWatch, canary []string) (string, error) {
	all := growths(requests, canary, "", g.Window)
	// An absent series of good requests is 0 of them; an absent one of bad requests then adds nothing, as it should.
	good := fmt.Sprintf("(sum(%s) or vector(0))", growths(requests, canary, ","+notServerFault, g.Window))
	switch g.Metric {
	case v1.MetricErrorRate:
		return fmt.Sprintf("1 - %s / sum(%s)", good, all), nil
	case v1.MetricSuccessRate:
		return fmt.Sprintf("%s / sum(%s)", good, all), nil
	case v1.MetricLatency:
		quantile, err := quantileOf(g)
		buckets := growths(durations, canary, "", g.Window)
		return fmt.Sprintf("histogram_quantile(%s, sum by (le) (%s)) / 1000", quantile, buckets), err
	}
	return "", fmt.Errorf("gate %s: metric %q is not known: errorRate, successRate or latency is expected", g.Name, g.Metric)
}

func quantileOf(g pipeline.GateWatch) (string, error) {
	if g.Quantile == "" {
		return defaultQuantile, nil
	}
	q, err := strconv.ParseFloat(g.Quantile, 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return "", fmt.Errorf(`gate %s: quantile: %q; a number between 0 and 1 is expected, as "0.99"`, g.Name, g.Quantile)
	}
	return strconv.FormatFloat(q, 'g', -1, 64), nil
}

// growth is by how much each series of a counter grew in the window.
//
// increase() takes a series' first value for its starting point, so the first requests of a new pod, or the first
// error of a version, would not count. Where a series was not there before the window it grew from 0, so its first
// (and, as a counter, least) value in the window is added. That is believed only if Prometheus was scraping at the
// window's start: after an outage, old series look new.
func growth(metric, matchers string, window time.Duration) string {
	series, w := fmt.Sprintf("%s{%s}", metric, matchers), promDuration(window)
	return fmt.Sprintf(`label_replace(increase(%[1]s[%[2]s]), "part", "increase", "", "")`+
		` or (min_over_time(%[1]s[%[2]s]) unless present_over_time(%[1]s[%[3]s] offset %[2]s) and on() count(up offset %[2]s))`,
		series, w, memory)
}

// growths is the growth of several selections that have no series in common, each narrowed by more.
func growths(metric string, selections []string, more string, window time.Duration) string {
	parts := make([]string, len(selections))
	for i, matchers := range selections {
		parts[i] = growth(metric, matchers+more, window)
	}
	return strings.Join(parts, " or ")
}

// versionless selects what matchers of the canary's version miss: requests that its pods did not answer, in time or at all. The
// version comes with an answer; without one callers know of a pod what istiod says, its workload and its canonical revision.
func versionless(g pipeline.GateWatch, canary string) []string {
	byVersion := fmt.Sprintf("destination_version=%q", g.Canary.Labels["version"])
	if g.Exposure == pipeline.ExposureMirror || !strings.HasSuffix(canary, byVersion) {
		return nil
	}
	who := fmt.Sprintf("destination_canonical_revision=%q", canonicalRevision(g.Canary))
	if g.Canary.Workload != "" {
		who = fmt.Sprintf("destination_workload=%q", g.Canary.Workload)
	}
	return []string{strings.TrimSuffix(canary, byVersion) + `destination_version="unknown",` + who}
}

// canaryMatchers select the canary's requests to the host, as the right proxy reports them: mirrored requests are seen by the
// destination's only, requests that never left (overflow, ejection, injected faults) by the source's only.
func canaryMatchers(g pipeline.GateWatch) (string, error) {
	reporter := "source"
	if g.Exposure == pipeline.ExposureMirror {
		reporter = "destination"
	}
	if g.Canary.SharesHost && g.Canary.Workload == "" {
		return "", fmt.Errorf("gate %s: version %s answers on a port of %s beside %s and has no workload, so Istio's metrics can not tell it apart; give it a host of its own, or give the gate a query",
			g.Name, g.Canary.Version, g.Canary.Host, g.Stable.Version)
	}
	if g.Canary.Host != "" {
		return elsewhereMatchers(g, reporter), nil
	}
	label, value := "destination_version", g.Canary.Labels["version"]
	if revision := canonicalRevision(g.Canary); revision != "" && !isService(g.Host, g.Namespace) {
		label, value = "destination_canonical_revision", revision
	}
	if value == "" {
		label, value = "destination_workload", g.Canary.Workload
	}
	if value == "" {
		return "", fmt.Errorf("gate %s: version %s has neither a label `version` nor a workload, so Istio's metrics can not tell it apart; add the label, or give the gate a query",
			g.Name, g.Canary.Version)
	}
	return fmt.Sprintf("reporter=%q,destination_service_name=%q,destination_service_namespace=%q,%s=%q",
		reporter, serviceName(g.Host, g.Namespace), g.Namespace, label, value), nil
}

// elsewhereMatchers select the requests to a canary with a host of its own. What its own proxies report bears the name of any of
// the Services that select its pods, so there its workload tells, where there is one; and so it does where stable answers on
// another port of the same host, since metrics name no ports.
func elsewhereMatchers(g pipeline.GateWatch, reporter string) string {
	if g.Exposure == pipeline.ExposureMirror && g.Canary.Workload != "" {
		return fmt.Sprintf("reporter=%q,destination_workload=%q,destination_workload_namespace=%q", reporter, g.Canary.Workload, g.Namespace)
	}
	host := fmt.Sprintf("reporter=%q,destination_service_name=%q,destination_service_namespace=%q",
		reporter, serviceName(g.Canary.Host, g.Namespace), g.Namespace)
	if g.Canary.SharesHost {
		return host + fmt.Sprintf(",destination_workload=%q", g.Canary.Workload)
	}
	return host
}

// isService: endpoints of any other host are a ServiceEntry's, and may have no proxy that tells its version. Of those the callers'
// proxies know what istiod says of their labels.
func isService(host, namespace string) bool {
	return serviceName(host, namespace) != v1.HostKey(host, namespace)
}

// canonicalRevision is what Istio makes of a version's labels; empty: nothing.
func canonicalRevision(t pipeline.GateTarget) string {
	for _, label := range v1.RevisionLabels {
		if revision := t.Labels[label]; revision != "" {
			return revision
		}
	}
	return ""
}

// serviceName is Istio's destination_service_name for a host: the Service's short name, else the host as it is.
func serviceName(host, namespace string) string {
	key := v1.HostKey(host, namespace)
	if name, isService := strings.CutSuffix(key, "."+namespace+"."+v1.ClusterDomain); isService && !strings.Contains(name, ".") {
		return name
	}
	return key
}

// hostOf is Istio's destination_service for a version: the full name of its own host, else of the Rollout's.
func hostOf(g pipeline.GateWatch, t pipeline.GateTarget) string {
	if t.Host != "" {
		return v1.HostKey(t.Host, g.Namespace)
	}
	return v1.HostKey(g.Host, g.Namespace)
}

// promDuration writes a duration as PromQL reads it, in one unit: 60s, 1500ms.
func promDuration(d time.Duration) string {
	if d%time.Second == 0 {
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}
