package analysis

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"sluice.dev/sluice/internal/pipeline"
)

// reading is what Prometheus says of one time: a number, or why there is none.
type reading struct {
	value float64
	// verdict is empty for a number, else NoData or Error, and message says why.
	verdict pipeline.Verdict
	message string
	// provisional: Prometheus did not answer; to be asked again.
	provisional bool
	// invalid is the message of a query that can not be asked at all.
	invalid string
}

// judged is a sample, and whether it may still change.
type judged struct {
	pipeline.Sample
	// number is the value of a Pass or Fail.
	number      float64
	provisional bool
}

func noData(format string, args ...any) reading {
	return reading{verdict: pipeline.NoData, message: fmt.Sprintf(format, args...)}
}

func bad(format string, args ...any) reading {
	return reading{verdict: pipeline.Error, message: fmt.Sprintf(format, args...)}
}

// point is one value of one series.
type point struct {
	value     float64
	series    model.Metric
	histogram bool
}

// read finds the one number at each of the times in an answer of Prometheus. Whatever else is there is no number.
// An instant answer is for the only time that was asked for, whatever time it bears.
func read(answer model.Value, times []time.Time) []reading {
	points := map[model.Time][]point{}
	switch a := answer.(type) {
	case nil:
	case model.Matrix:
		points = matrixPoints(a)
	case model.Vector:
		if len(times) == 1 {
			points[model.TimeFromUnixNano(times[0].UnixNano())] = vectorPoints(a)
		}
	case *model.Scalar:
		if len(times) == 1 && a != nil {
			points[model.TimeFromUnixNano(times[0].UnixNano())] = []point{{value: float64(a.Value)}}
		}
	default:
		return slices.Repeat([]reading{bad("the query returned a %s; one number is expected", answer.Type())}, len(times))
	}
	readings := make([]reading, len(times))
	for i, t := range times {
		readings[i] = readPoints(points[model.TimeFromUnixNano(t.UnixNano())])
	}
	return readings
}

func matrixPoints(matrix model.Matrix) map[model.Time][]point {
	points := map[model.Time][]point{}
	for _, stream := range matrix {
		if stream == nil {
			continue
		}
		for _, v := range stream.Values {
			points[v.Timestamp] = append(points[v.Timestamp], point{value: float64(v.Value), series: stream.Metric})
		}
		for _, h := range stream.Histograms {
			points[h.Timestamp] = append(points[h.Timestamp], point{series: stream.Metric, histogram: true})
		}
	}
	return points
}

func vectorPoints(vector model.Vector) []point {
	var points []point
	for _, s := range vector {
		if s != nil {
			points = append(points, point{value: float64(s.Value), series: s.Metric, histogram: s.Histogram != nil})
		}
	}
	return points
}

func readPoints(points []point) reading {
	switch {
	case len(points) == 0:
		return noData("the query returned nothing")
	case len(points) > 1:
		return bad("the query returned %d series, one is expected: %s, %s …", len(points), points[0].series, points[1].series)
	case points[0].histogram:
		return bad("the query returned a native histogram; one number is expected")
	case math.IsNaN(points[0].value) || math.IsInf(points[0].value, 0):
		return noData("the query returned %v", points[0].value)
	}
	return reading{value: points[0].value}
}

// rule is what readings are judged by.
type rule struct {
	limits limits
	// minRequests in the window, fewer are no evidence; 0: any number will do.
	minRequests int
	window      time.Duration
}

// judge makes the sample of a time from its value and, where the rule asks for requests, their count.
func (r rule) judge(at time.Time, value, count reading) judged {
	if r.minRequests > 0 {
		count = r.enough(count)
		if count.verdict != "" {
			return count.sample(at)
		}
	}
	if value.verdict != "" {
		return value.sample(at)
	}
	normal := r.limits.normal(value.value)
	return judged{
		Sample: pipeline.Sample{Time: at, Verdict: r.limits.verdict(normal), Value: r.limits.format(normal)},
		number: normal,
	}
}

func (r rule) enough(count reading) reading {
	if count.verdict == "" && !(count.value >= float64(r.minRequests)) {
		noun := "requests"
		if math.Floor(count.value) == 1 {
			noun = "request"
		}
		return noData("%.0f %s in %s, %d needed", math.Floor(count.value), noun, model.Duration(r.window), r.minRequests)
	}
	return count
}

func (r reading) sample(at time.Time) judged {
	return judged{
		Sample:      pipeline.Sample{Time: at, Verdict: r.verdict, Message: r.message},
		provisional: r.provisional,
	}
}
