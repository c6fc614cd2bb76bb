package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

type key = types.NamespacedName

const (
	unitSeconds = "s"
	unitMillis  = "ms"
	unitMiB     = "MiB"
)

// Report is what a run measured.
type Report struct {
	Machine          string    `json:"machine"`
	Commit           string    `json:"commit"`
	Date             time.Time `json:"date"`
	PropagationDelay string    `json:"propagationDelay"`
	Figures          []Figure  `json:"figures"`
}

// Figure is one number, or the median and the maximum of several.
type Figure struct {
	// Row of the table that the project measures itself by, such as P1; empty for what stands beside it.
	Row  string `json:"row,omitempty"`
	Name string `json:"name"`
	// N is the number of Rollouts.
	N    int    `json:"n"`
	Unit string `json:"unit,omitempty"`
	// Value, or the median.
	Value float64  `json:"value"`
	Max   *float64 `json:"max,omitempty"`
	// Limit is the median, or the value, that a plain client of the same API server achieves, LimitMax its maximum.
	Limit    *float64 `json:"limit,omitempty"`
	LimitMax *float64 `json:"limitMax,omitempty"`
	// Must is what is asked for at most, MustMax of the maximum.
	Must    *float64 `json:"must,omitempty"`
	MustMax *float64 `json:"mustMax,omitempty"`
	Met     *bool    `json:"met,omitempty"`
}

// target is what a figure must be at most.
type target struct{ value, max float64 }

// targets by name and number of Rollouts.
var targets = map[string]map[int]target{
	"trigger → promoted":                       {1: {.1, .1}, 300: {5, 6}},
	"first bad answer → 100% stable":           {1: {.02, .02}, 300: {.6, 1}},
	"API requests per release":                 {300: {9, 0}},
	"Events per release":                       {300: {transitions, 0}},
	"operator CPU per release":                 {300: {12, 0}},
	"API-server CPU per release":               {300: {30, 0}},
	"idle: memory":                             {300: {60, 0}},
	"idle: API requests per minute":            {300: {0, 0}},
	"killed, restarted: next write":            {300: {1, 2}},
	"idle after it: memory":                    {10000: {400, 0}},
	"cold start → synced":                      {10000: {20, 0}},
	"in flight: Prometheus queries per minute": {1000: {60, 0}},
	"push webhook → first traffic write":       {1: {1, 1}},
}

// transitions of a release: the run starts, two steps start, the version is promoted.
const transitions = 4

func (r *Report) add(figures ...Figure) {
	for _, f := range figures {
		if t, ok := targets[f.Name][f.N]; ok {
			met := f.Value <= t.value
			f.Must = &t.value
			if f.Max != nil {
				f.MustMax, met = &t.max, met && *f.Max <= t.max
			}
			f.Met = &met
		}
		r.Figures = append(r.Figures, f)
	}
}

// timeFigure is the median and the maximum of some times, beside those of a plain client.
func timeFigure(row, name string, n int, times, limit []time.Duration) Figure {
	p50, most := spread(times)
	f := Figure{Row: row, Name: name, N: n, Unit: unitSeconds, Value: p50, Max: &most}
	if len(limit) > 0 {
		p50, most := spread(limit)
		f.Limit, f.LimitMax = &p50, &most
	}
	return f
}

func spread(times []time.Duration) (p50, most float64) {
	if len(times) == 0 {
		return 0, 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)-1)/2].Seconds(), sorted[len(sorted)-1].Seconds()
}

func rateFigure(n int, rate float64) Figure {
	return Figure{Name: "writes per second of a plain client", N: n, Value: rate}
}

// fewest that processor times are told for: what the processes do otherwise would be most of it.
const fewest = 10

// costFigures are what each of so many cost: a release, or a rollback.
func costFigures(row, of string, n, many int, before, after *cost) []Figure {
	per := func(total float64) float64 { return total / float64(many) }
	var all, events float64
	var detail []Figure
	for _, what := range slices.Sorted(maps.Keys(after.requests)) {
		count := after.requests[what] - before.requests[what]
		if count == 0 {
			continue
		}
		if strings.HasSuffix(what, " events") {
			events += count
			continue
		}
		all += count
		detail = append(detail, Figure{Row: row, Name: "  " + what, N: n, Value: per(count)})
	}
	figures := []Figure{{Row: row, Name: "API requests per " + of, N: n, Value: per(all)}}
	figures = append(figures, detail...)
	figures = append(figures,
		Figure{Row: row, Name: "Events per " + of, N: n, Value: per(events)},
		Figure{Row: row, Name: "Prometheus queries per " + of, N: n, Value: per(float64(after.queries - before.queries))},
		Figure{Row: row, Name: "  reconciles", N: n, Value: per(after.reconciles - before.reconciles)},
	)
	if many < fewest {
		return figures
	}
	idle, length := atRest{}, after.at.Sub(before.at)
	if before.rest != nil {
		idle = *before.rest
	}
	millis := func(d time.Duration) float64 { return per(float64(d) / float64(time.Millisecond)) }
	return append(figures,
		Figure{Row: row, Name: "operator CPU per " + of, N: n, Unit: unitMillis, Value: millis(spent(before.operator, after.operator, idle.operator, length))},
		Figure{Row: row, Name: "API-server CPU per " + of, N: n, Unit: unitMillis, Value: millis(spent(before.server, after.server, idle.server, length))},
		Figure{Row: row, Name: "  etcd CPU", N: n, Unit: unitMillis, Value: millis(spent(before.etcd, after.etcd, idle.etcd, length))},
		Figure{Row: row, Name: "  CPU of the benchmark itself", N: n, Unit: unitMillis, Value: millis(spent(before.self, after.self, idle.self, length))},
	)
}

// JSON writes the report for programs.
func (r *Report) JSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

// Table writes the report for people.
func (r *Report) Table(out io.Writer) error {
	fmt.Fprintf(out, "%s · commit %s · %s · propagationDelay %s, settle 0\n\n", r.Machine, r.Commit, r.Date.Format(time.RFC3339), r.PropagationDelay)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tfigure\tN\tSluice\tlimit of the box\tratio\tmust\tmet")
	figures := slices.Clone(r.Figures)
	slices.SortStableFunc(figures, func(a, b Figure) int { return cmp.Compare(rank(&a), rank(&b)) })
	for i := range figures {
		f := &figures[i]
		met := ""
		if f.Met != nil {
			met = map[bool]string{true: "yes", false: "NO"}[*f.Met]
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", f.Row, f.Name, f.N,
			pair(&f.Value, f.Max, f.Unit), pair(f.Limit, f.LimitMax, f.Unit), f.ratio(), pair(f.Must, f.MustMax, f.Unit), met)
	}
	return w.Flush()
}

// rank puts the rows in order.
func rank(f *Figure) string { return f.Row }

func (f *Figure) ratio() string {
	if f.Limit == nil || *f.Limit == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f×", f.Value / *f.Limit)
}

func pair(value, most *float64, unit string) string {
	switch {
	case value == nil:
		return ""
	case most == nil:
		return strings.TrimSpace(number(*value) + " " + unit)
	}
	return strings.TrimSpace(number(*value) + " / " + number(*most) + " " + unit)
}

func number(v float64) string {
	switch {
	case v == float64(int64(v)):
		return fmt.Sprintf("%d", int64(v))
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
