package analysis

import (
	"container/heap"
	"time"
)

// schedule holds when each gate is to be looked at next, the soonest first.
type schedule []appointment

type appointment struct {
	at   time.Time
	gate *gate
}

// add makes an appointment.
func (s *schedule) add(at time.Time, g *gate) { heap.Push(s, appointment{at, g}) }

// due takes out the gates whose time has come, and tells when the next one's will; the zero time: never.
// Forgotten gates are dropped when they come up.
func (s *schedule) due(now time.Time) (due []*gate, next time.Time) {
	for len(*s) > 0 {
		if head := (*s)[0]; !head.gate.forgotten && head.at.After(now) {
			return due, head.at
		}
		if g := heap.Pop(s).(appointment).gate; !g.forgotten {
			due = append(due, g)
		}
	}
	return due, time.Time{}
}

// Len, Less, Swap, Push and Pop are for container/heap.
func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].at.Before(s[j].at) }
func (s schedule) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(x any)        { *s = append(*s, x.(appointment)) }

// Pop forgets the element in the backing array as well, so that its gate can be freed.
func (s *schedule) Pop() any {
	last := len(*s) - 1
	out := (*s)[last]
	(*s)[last] = appointment{}
	*s = (*s)[:last]
	return out
}
