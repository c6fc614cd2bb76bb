package load

import "time"

// forgiven is how far behind its rate a load may fall: what a longer stall of the machine kept it from sending is never sent, since
// so many requests at once would be another load than the one that was asked for.
const forgiven = 200 * time.Millisecond

// pace says when requests are due. After a short stall it makes up for those that it is late with, so that the rate holds.
type pace struct {
	interval time.Duration
	due      time.Time
	timer    *time.Timer
}

// newPace has the first request due at once, so that as many come within a time as the rate says, also of one.
func newPace(rate float64) *pace {
	interval := time.Duration(float64(time.Second) / rate)
	return &pace{interval: interval, due: time.Now().Add(-interval), timer: time.NewTimer(0)}
}

// next tells when the next request is due.
func (p *pace) next() <-chan time.Time {
	p.due = p.due.Add(p.interval)
	wait := time.Until(p.due)
	if wait < -forgiven {
		p.due = p.due.Add(-wait)
	}
	p.timer.Reset(max(wait, 0))
	return p.timer.C
}

func (p *pace) stop() { p.timer.Stop() }
