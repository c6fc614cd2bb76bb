package analysis

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"

	"sluice.dev/sluice/internal/pipeline"
)

// row is one series of a matrix: pairs of seconds and values.
func row(name string, pairs ...float64) *model.SampleStream {
	s := &model.SampleStream{Metric: model.Metric{"name": model.LabelValue(name)}}
	for i := 0; i < len(pairs); i += 2 {
		s.Values = append(s.Values, model.SamplePair{Timestamp: model.TimeFromUnixNano(at(pairs[i]).UnixNano()), Value: model.SampleValue(pairs[i+1])})
	}
	return s
}

func native(seconds float64) *model.SampleStream {
	return &model.SampleStream{Histograms: []model.SampleHistogramPair{{Timestamp: model.TimeFromUnixNano(at(seconds).UnixNano())}}}
}

func TestJudge(t *testing.T) {
	limit := 1.0
	plain := rule{limits: limits{max: &limit}}
	counted := rule{limits: limits{max: &limit}, minRequests: 20, window: time.Minute}
	times := []time.Time{at(10)}
	value := model.Matrix{row("a", 10, 0.5)}
	for name, c := range map[string]struct {
		rule          rule
		value, count  model.Value
		verdict       pipeline.Verdict
		shown, reason string
	}{
		"pass":            {plain, value, nil, pipeline.Pass, "0.5", ""},
		"fail":            {plain, model.Matrix{row("a", 10, 1.5)}, nil, pipeline.Fail, "1.5", ""},
		"at the limit":    {plain, model.Matrix{row("a", 10, 1)}, nil, pipeline.Pass, "1", ""},
		"no answer":       {plain, nil, nil, pipeline.NoData, "", "the query returned nothing"},
		"empty":           {plain, model.Matrix{}, nil, pipeline.NoData, "", "the query returned nothing"},
		"stale":           {plain, model.Matrix{row("a", 0, 0.5)}, nil, pipeline.NoData, "", "the query returned nothing"},
		"NaN":             {plain, model.Matrix{row("a", 10, math.NaN())}, nil, pipeline.NoData, "", "the query returned NaN"},
		"+Inf":            {plain, model.Matrix{row("a", 10, math.Inf(1))}, nil, pipeline.NoData, "", "the query returned +Inf"},
		"-Inf":            {plain, model.Matrix{row("a", 10, math.Inf(-1))}, nil, pipeline.NoData, "", "the query returned -Inf"},
		"several":         {plain, model.Matrix{row("a", 10, 0), row("b", 10, 0)}, nil, pipeline.Error, "", `the query returned 2 series, one is expected: {name="a"}, {name="b"} …`},
		"one at a time":   {plain, model.Matrix{row("a", 0, 7, 10, 0.5), row("b", 0, 7)}, nil, pipeline.Pass, "0.5", ""},
		"histogram":       {plain, model.Matrix{native(10)}, nil, pipeline.Error, "", "the query returned a native histogram; one number is expected"},
		"nil row":         {plain, model.Matrix{nil}, nil, pipeline.NoData, "", "the query returned nothing"},
		"string":          {plain, &model.String{Value: "0"}, nil, pipeline.Error, "", "the query returned a string; one number is expected"},
		"scalar":          {plain, &model.Scalar{Value: 1}, nil, pipeline.Pass, "1", ""},
		"vector":          {plain, model.Vector{{Value: 1}}, nil, pipeline.Pass, "1", ""},
		"two in a vector": {plain, model.Vector{{Value: 1}, {Value: 1}}, nil, pipeline.Error, "", "the query returned 2 series, one is expected: {}, {} …"},
		"empty vector":    {plain, model.Vector{}, nil, pipeline.NoData, "", "the query returned nothing"},
		"enough":          {counted, value, model.Matrix{row("n", 10, 20)}, pipeline.Pass, "0.5", ""},
		"too few":         {counted, value, model.Matrix{row("n", 10, 7.3)}, pipeline.NoData, "", "7 requests in 1m, 20 needed"},
		"almost":          {counted, value, model.Matrix{row("n", 10, 19.9)}, pipeline.NoData, "", "19 requests in 1m, 20 needed"},
		"too few to fail": {counted, model.Matrix{row("a", 10, 9)}, model.Matrix{row("n", 10, 1)}, pipeline.NoData, "", "1 request in 1m, 20 needed"},
		"count is NaN":    {counted, value, model.Matrix{row("n", 10, math.NaN())}, pipeline.NoData, "", "the query returned NaN"},
		"no count":        {counted, value, model.Matrix{}, pipeline.NoData, "", "the query returned nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gate{rule: c.rule}
			out := g.evaluate(times, read(c.value, times), read(c.count, times))
			want := []judged{{Sample: pipeline.Sample{Time: times[0], Verdict: c.verdict, Value: c.shown, Message: c.reason}}}
			ignoreNumber := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".number" }, cmp.Ignore())
			if diff := cmp.Diff(want, out.samples, cmp.AllowUnexported(judged{}), ignoreNumber); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzJudge: whatever Prometheus answers, nothing panics, and Unknown is not Pass: a Pass stands for exactly one finite number at its time.
func FuzzJudge(f *testing.F) {
	for _, seed := range []string{
		`[{"metric":{},"values":[[1700000010,"0.5"]]}]`, `[]`, `null`, `[null]`, `[{"metric":{},"values":[[1700000010,"NaN"]]}]`,
		`[{"metric":{"a":"b"},"values":[[1700000010,"1"]]},{"metric":{},"values":[[1700000010,"1"],[1700000020,"2"]]}]`,
		`[{"metric":{},"histograms":[[1700000010,{"count":"1","sum":"1"}]]}]`, `[{"metric":{},"values":[[1700000010,"1"],[1700000010,"1"]]}]`,
	} {
		f.Add([]byte(seed))
	}
	limit := 1.0
	times := []time.Time{at(10), at(20), at(30)}
	f.Fuzz(func(t *testing.T, data []byte) {
		var matrix model.Matrix
		if json.Unmarshal(data, &matrix) != nil {
			return
		}
		g := &gate{rule: rule{limits: limits{max: &limit}}}
		for _, s := range g.evaluate(times, read(matrix, times), nil).samples {
			if s.Verdict != pipeline.Pass {
				continue
			}
			points := matrixPoints(matrix)[model.TimeFromUnixNano(s.Time.UnixNano())]
			if len(points) != 1 || points[0].histogram || !(points[0].value <= limit) || math.IsInf(points[0].value, 0) {
				t.Errorf("Pass at %s on %v", s.Time, points)
			}
		}
	})
}
