package apitest

import (
	"math"

	"pgregory.net/rapid"
)

// durations are texts that are, or look like, durations, numbers and percentages.
func durations() *rapid.Generator[any] {
	return rapid.OneOf(
		rapid.StringMatching(`-?([0-9]{1,7}([.][0-9]{0,4})?(ns|us|µs|ms|s|m|h|d|%|)){1,5}`).AsAny(),
		rapid.StringMatching(`([0-9]{1,5}([.][0-9]{1,3})?(h|m|s)|[0-9]{1,5}ms){1,4}`).AsAny(),
		rapid.StringMatching(`[0-9]{1,18}(ms|s|m|h)`).AsAny(),
		rapid.SampledFrom([]any{"0", "0s", "+1s", "1s ", "1 s", "1S", ".5s", "5.s", "1e3s", "9223372036s", "2562048h", "1s\n", "١s"}),
	)
}

// numbers are integers and others at the edges of what Go's types hold.
func numbers() *rapid.Generator[any] {
	return rapid.OneOf(
		rapid.Int64Range(-1, 101).AsAny(),
		rapid.SampledFrom([]any{
			int64(math.MaxInt32), int64(math.MaxInt32) + 1, int64(math.MinInt32) - 1, int64(math.MaxUint32), int64(math.MaxUint32) + 1,
			int64(math.MaxInt64), int64(math.MinInt64), 0.5, 1e30, 50.0, math.Copysign(0, -1), 1e-300,
		}),
	)
}

// replacement is any small JSON value.
func replacement() *rapid.Generator[any] {
	scalars := rapid.OneOf(
		durations(), numbers(), rapid.Bool().AsAny(), rapid.Just(any(nil)),
		rapid.StringMatching(`[-a-zA-Z0-9_./: ]{0,12}`).AsAny(),
		rapid.SampledFrom([]any{"v1", "GET", "UNAVAILABLE", "Hold", "2026-01-01T00:00:00Z"}),
	)
	return rapid.OneOf(
		scalars,
		rapid.Map(rapid.SliceOfN(scalars, 0, 2), func(list []any) any { return list }),
		rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"name", "exact", "value", "number", "hold"}), scalars, 0, 2),
			func(fields map[string]any) any { return fields }),
	)
}
