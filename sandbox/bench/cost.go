package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

// clockTick is the unit of /proc/PID/stat on Linux.
const clockTick = 10 * time.Millisecond

// cost is what was spent since the start of a process; two of them are subtracted.
type cost struct {
	// requests to the API server by "verb resource".
	requests map[string]float64
	// operatorRequests are those that the operator counted itself, of whatever kind.
	operatorRequests float64
	operator, server time.Duration
	// etcd and the benchmark itself share the processors with them.
	etcd, self time.Duration
	reconciles float64
	queries    int64
	at         time.Time
	// rest is what was spent in each second before, while nothing happened; nil: that is not known.
	rest *atRest
}

// atRest is processor time for each second.
type atRest struct{ operator, server, etcd, self float64 }

// costAtRest watches what is spent on nothing, and then begins to count.
func (s *scene) costAtRest(ctx context.Context) (*cost, error) {
	before, err := s.cost(ctx)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, quiet); err != nil {
		return nil, err
	}
	c, err := s.cost(ctx)
	if err != nil {
		return nil, err
	}
	share := func(from, to time.Duration) float64 { return float64(to-from) / float64(c.at.Sub(before.at)) }
	c.rest = &atRest{share(before.operator, c.operator), share(before.server, c.server), share(before.etcd, c.etcd), share(before.self, c.self)}
	return c, nil
}

// spent is the processor time between two costs, without what would have been spent on nothing meanwhile.
func spent(from, to time.Duration, rest float64, length time.Duration) time.Duration {
	return max(0, to-from-time.Duration(rest*float64(length)))
}

// groups whose requests count. What the API server asks of itself (leases, its own configuration) is in others.
var groups = map[string]bool{"": true, "sluice.dev": true, "networking.istio.io": true, "apps": true, "events.k8s.io": true}

// ownResources of the core group are the API server's own business.
var ownResources = map[string]bool{"": true, "configmaps": true, "namespaces": true, "serviceaccounts": true, "endpoints": true, "secrets": true}

func (s *scene) cost(ctx context.Context) (*cost, error) {
	c := &cost{queries: s.evidence.queries.Load(), at: time.Now()}
	var err error
	for _, p := range []struct {
		pid  int
		into *time.Duration
	}{{s.operator.PID(), &c.operator}, {s.APIServer.PID(), &c.server}, {s.Etcd.PID(), &c.etcd}, {os.Getpid(), &c.self}} {
		if *p.into, err = processorTime(p.pid); err != nil {
			return nil, err
		}
	}
	if c.reconciles, err = s.operatorMetric(ctx, `controller_runtime_reconcile_total{controller="rollout"`); err != nil {
		return nil, err
	}
	if c.operatorRequests, err = s.operatorMetric(ctx, "rest_client_requests_total"); err != nil {
		return nil, err
	}
	c.requests, err = s.requests(ctx)
	return c, err
}

// processorTime that a process has used.
func processorTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	// The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("processor time of process %d: %q has too few fields", pid, raw)
	}
	ticks := 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// resident memory of a process in MiB, and how much of it is the program's own file, which the system can drop at any time.
func resident(pid int) (all, file float64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	sizes := map[string]float64{"VmRSS": 0, "RssFile": 0}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		if _, wanted := sizes[name]; !wanted {
			continue
		}
		if sizes[name], err = strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64); err != nil {
			return 0, 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
	}
	return sizes["VmRSS"] / 1024, sizes["RssFile"] / 1024, nil
}

var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// requests that the API server has answered, watches apart, by verb and resource.
func (s *scene) requests(ctx context.Context) (map[string]float64, error) {
	httpClient, err := rest.HTTPClientFor(s.RESTConfig)
	if err != nil {
		return nil, err
	}
	counts := map[string]float64{}
	err = metricLines(ctx, httpClient, s.RESTConfig.Host+"/metrics", "apiserver_request_total{", func(line string, value float64) {
		labels := map[string]string{}
		for _, match := range label.FindAllStringSubmatch(line, -1) {
			labels[match[1]] = match[2]
		}
		if !groups[labels["group"]] || (labels["group"] == "" && ownResources[labels["resource"]]) || labels["verb"] == "WATCH" {
			return
		}
		resource := labels["resource"]
		if sub := labels["subresource"]; sub != "" {
			resource += "/" + sub
		}
		counts[strings.ToLower(labels["verb"])+" "+resource] += value
	})
	return counts, err
}

// operatorMetric is the sum of a metric's series.
func (s *scene) operatorMetric(ctx context.Context, name string) (float64, error) {
	sum := 0.0
	err := metricLines(ctx, http.DefaultClient, s.operator.MetricsURL, name, func(_ string, value float64) { sum += value })
	return sum, err
}

func metricLines(ctx context.Context, httpClient *http.Client, url, prefix string, do func(line string, value float64)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if line = strings.TrimSpace(line); strings.HasPrefix(line, prefix) {
			value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				return fmt.Errorf("reading metrics: %q: %w", line, err)
			}
			do(line, value)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading metrics: %w", err)
		}
	}
}
