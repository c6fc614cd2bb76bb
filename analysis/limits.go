package analysis

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// unit is how people write a value.
type unit int

const (
	number unit = iota
	percentage
	seconds
)

// limits of a gate, in the metric's own terms: shares from 0 to 1, seconds, or whatever a query yields.
type limits struct {
	max, min *float64
	unit     unit
	// ratio rounds away what dividing floats leaves behind, so that 5 of 500 is 1% and not a hair more.
	ratio bool
}

// makeLimits reads Max and Min of a gate; the error names the field, its value, and what would be right.
func makeLimits(g pipeline.GateWatch) (limits, error) {
	l := limits{ratio: g.Metric == v1.MetricErrorRate || g.Metric == v1.MetricSuccessRate}
	if g.Max == "" && g.Min == "" {
		return l, fmt.Errorf("gate %s: neither max nor min is set; set one of them", g.Name)
	}
	for _, field := range []struct {
		name, text string
		into       **float64
	}{{"min", g.Min, &l.min}, {"max", g.Max, &l.max}} {
		if field.text == "" {
			continue
		}
		value, unit, err := parseLimit(field.text)
		if err != nil {
			return l, fmt.Errorf("gate %s: %s: %w", g.Name, field.name, err)
		}
		*field.into, l.unit = &value, unit
	}
	switch g.Metric {
	case v1.MetricErrorRate, v1.MetricSuccessRate:
		l.unit = percentage
	case v1.MetricLatency:
		l.unit = seconds
	}
	return l, nil
}

// parseLimit reads "0.5", "1%" (0.01) or "500ms" (0.5).
func parseLimit(text string) (float64, unit, error) {
	if share, ok := strings.CutSuffix(text, "%"); ok {
		// Shifting the decimal exponent is exact where dividing by 100 is not: 4.2% must equal 0.042.
		value, err := parseNumber(share + "e-2")
		if err != nil {
			return 0, 0, limitError(text)
		}
		return value, percentage, nil
	}
	if value, err := parseNumber(text); err == nil {
		return value, number, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, 0, limitError(text)
	}
	return d.Seconds(), seconds, nil
}

func limitError(text string) error {
	return fmt.Errorf(`%q is not a limit: a number ("0.5"), a percentage ("1%%") or a duration ("500ms") is expected`, text)
}

func parseNumber(text string) (float64, error) {
	value, err := strconv.ParseFloat(text, 64)
	if err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
		err = strconv.ErrRange
	}
	return value, err
}

// normal is the value that is compared and shown.
func (l limits) normal(value float64) float64 {
	if l.ratio {
		return math.Round(value*1e9) / 1e9
	}
	return value
}

// verdict is Pass or Fail. A value that is no number at all never passes.
func (l limits) verdict(value float64) pipeline.Verdict {
	pass := !math.IsNaN(value) && !math.IsInf(value, 0)
	if l.max != nil {
		pass = pass && value <= *l.max
	}
	if l.min != nil {
		pass = pass && value >= *l.min
	}
	if pass {
		return pipeline.Pass
	}
	return pipeline.Fail
}

// format writes a value as people do: "4.2%", "312ms", "0.25". Three significant digits, and more where three would
// read as if the other verdict were right: 1.0004% against a limit of 1% is not "1%".
func (l limits) format(value float64) string {
	scale, suffix := l.scale(value)
	text := ""
	for digits := 3; digits <= 17; digits++ {
		text = significant(value*scale, digits)
		if shown, err := parseNumber(text); err == nil && l.verdict(shown/scale) == l.verdict(value) {
			break
		}
	}
	return text + suffix
}

func (l limits) scale(value float64) (float64, string) {
	switch size := math.Abs(value); {
	case l.unit == percentage:
		return 100, "%"
	case l.unit != seconds:
		return 1, ""
	case size >= 1:
		return 1, "s"
	case size >= 1e-3 || size == 0:
		return 1e3, "ms"
	default:
		return 1e6, "µs"
	}
}

// significant prints digits significant digits, but never rounds off whole ones: 12345, 1.23, 0.00123.
func significant(value float64, digits int) string {
	size := math.Abs(value)
	if value == 0 {
		return "0"
	}
	if size < 1e-6 || size >= 1e15 {
		return strconv.FormatFloat(value, 'g', digits, 64)
	}
	decimals := max(0, digits-1-int(math.Floor(math.Log10(size))))
	text := strconv.FormatFloat(value, 'f', decimals, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}
