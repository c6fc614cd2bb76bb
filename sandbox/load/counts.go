package load

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Outcome counts requests and those among them that failed for their user: of
// pages, those that did not come or came without details or reviews.
type Outcome struct{ Total, Failed int }

// Counts is what a load has seen.
type Counts struct {
	Outcome
	// ByVersion counts answers by the version of the service that they show; of
	// pages it is reviews', and "" stands for pages without reviews.
	ByVersion map[string]int
	// ByStatus counts answers by their HTTP status; 0 stands for none in time.
	ByStatus map[int]int
	// ByUser counts by the end-user header; "" stands for requests without one.
	ByUser map[string]Outcome
	// UserVersions counts pages by user and version of reviews.
	UserVersions map[string]map[string]int
	// RatingsUnavailable counts pages whose reviews could not get ratings.
	RatingsUnavailable int
	// Skipped counts requests that were not sent because too many were in flight.
	Skipped int
	// LastError is the last failure's reason.
	LastError error

	latencies []time.Duration
}

func newCounts() Counts {
	return Counts{ByVersion: map[string]int{}, ByStatus: map[int]int{}, ByUser: map[string]Outcome{}, UserVersions: map[string]map[string]int{}}
}

func (c *Counts) add(user string, status int, seen Seen, err error, took time.Duration) {
	one := Outcome{Total: 1}
	if err != nil {
		one.Failed, c.LastError = 1, err
	}
	c.Outcome = c.Outcome.plus(one)
	c.ByUser[user] = c.ByUser[user].plus(one)
	c.ByVersion[seen.Version]++
	c.ByStatus[status]++
	if c.UserVersions[user] == nil {
		c.UserVersions[user] = map[string]int{}
	}
	c.UserVersions[user][seen.Version]++
	if seen.RatingsUnavailable {
		c.RatingsUnavailable++
	}
	c.latencies = append(c.latencies, took)
}

func (o Outcome) plus(other Outcome) Outcome {
	return Outcome{Total: o.Total + other.Total, Failed: o.Failed + other.Failed}
}

func (c Counts) clone() Counts {
	c.ByVersion, c.ByStatus, c.ByUser = maps.Clone(c.ByVersion), maps.Clone(c.ByStatus), maps.Clone(c.ByUser)
	versions := map[string]map[string]int{}
	for user, counts := range c.UserVersions {
		versions[user] = maps.Clone(counts)
	}
	c.UserVersions = versions
	c.latencies = slices.Clone(c.latencies)
	return c
}

// String sums up the counts in a line.
func (c Counts) String() string {
	return fmt.Sprintf("%d requests, %d failed, %d skipped, versions %v, without ratings %d, median %s, p99 %s, last error: %v",
		c.Total, c.Failed, c.Skipped, c.ByVersion, c.RatingsUnavailable,
		c.Quantile(0.5).Round(time.Millisecond/10), c.Quantile(0.99).Round(time.Millisecond/10), c.LastError)
}

// Quantile is the latency that this share (0-1) of the requests stayed within;
// 0 where nothing was counted.
func (c Counts) Quantile(q float64) time.Duration {
	if len(c.latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(c.latencies))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
