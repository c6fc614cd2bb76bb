package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sluice.dev/sluice/internal/pipeline"
)

// apply writes what the plan lacks, and tells whether anything happened that another decision depends on.
func (c *convergence) apply(ctx context.Context) (bool, error) {
	changes := c.writable(c.plan.changes)
	if c.decision.Rollback {
		// The rest has time until others that have to go back have gone as well.
		changes = slices.DeleteFunc(changes, func(ch change) bool { return !ch.carries })
	}
	if len(changes) == 0 {
		return c.verify(ctx), nil
	}
	if !c.confirmed {
		// The mesh is not as status says although nothing was decided now: before that is "repaired", make sure that this
		// is the latest status and not one from before a pause of this process.
		if err := c.confirm(ctx); err != nil {
			return false, err
		}
	}
	if err := c.writeAll(ctx, changes); err != nil {
		return false, err
	}
	took := c.Clock.Since(c.began)
	c.verify(ctx)
	c.plan = c.makePlan(c.Clock.Now())
	c.planned = c.plan.wait == 0
	if c.decision.Rollback && !c.plan.carrying {
		c.back = true
		c.Metrics.rollbackSeconds.Observe(took.Seconds())
	}
	return true, nil
}

// writable leaves out what the API server refused in this reconcile, and on the way forward all that would follow it: a
// step's writes keep their order.
func (c *convergence) writable(changes []change) []change {
	var left []change
	for _, ch := range changes {
		switch {
		case !c.refused[ch.object()]:
			left = append(left, ch)
		case !c.urgent && ch.carries:
			return left
		}
	}
	return left
}

// confirm reads the Rollout live. A newer one is waited for in the cache, and on the way back to stable decided on at once.
func (c *convergence) confirm(ctx context.Context) error {
	live, err := c.readLive(ctx, c.key)
	if err != nil {
		return fmt.Errorf("confirming Rollout %s: %w", c.key, err)
	}
	if live == nil || live.ResourceVersion != c.rollout.ResourceVersion {
		if c.urgent {
			return errConflict
		}
		c.interest.await(c.key)
		return errStale
	}
	c.confirmed = true
	return nil
}

// writeAll makes the changes one after the other, and ends with the first that fails. On the way back to stable the
// VirtualServices are written at the same time, and one that fails keeps none of the others; but the rule, which may still
// be needed then, stays as it is. A refusal is noted and is no error: what else went wrong is to be tried again at once.
func (c *convergence) writeAll(ctx context.Context, changes []change) error {
	if !c.urgent {
		for _, change := range changes {
			if err := c.write(ctx, change); err != nil {
				return c.unlessRefused(change, err)
			}
		}
		return nil
	}
	for len(changes) > 0 {
		batch := 1
		for batch < len(changes) && changes[batch].kind == changes[0].kind {
			batch++
		}
		refusals := len(c.refused)
		if err := c.writeTogether(ctx, changes[:batch]); err != nil || len(c.refused) > refusals {
			return err
		}
		changes = changes[batch:]
	}
	return nil
}

// unlessRefused notes a refusal, and returns any other error.
func (c *convergence) unlessRefused(change change, err error) error {
	var refusal *refusalError
	if !errors.As(err, &refusal) {
		return err
	}
	if c.refused == nil {
		c.refused = map[objectRef]bool{}
	}
	c.refused[change.object()], c.notes.refusal = true, &refusal.problem
	return nil
}

// writeTogether makes changes at the same time. What follows from each write is noted in their order.
func (c *convergence) writeTogether(ctx context.Context, changes []change) error {
	results := make([]result, len(changes))
	for i := range changes {
		results[i] = c.prepare(ctx, &changes[i])
	}
	var wait sync.WaitGroup
	for i := 1; i < len(changes); i++ {
		wait.Go(func() { results[i].err = c.send(ctx, &changes[i]) })
	}
	results[0].err = c.send(ctx, &changes[0])
	wait.Wait()
	var failures []error
	for i := range changes {
		if err := c.unlessRefused(changes[i], c.note(changes[i], results[i])); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func (c *convergence) write(ctx context.Context, change change) error {
	result := c.prepare(ctx, &change)
	result.err = c.send(ctx, &change)
	return c.note(change, result)
}

// result of a write: what was sent, and whose work it undid.
type result struct {
	err    error
	sent   *unstructured.Unstructured
	writer string
}

// prepare notes what a write is about before it is made.
func (c *convergence) prepare(ctx context.Context, change *change) result {
	return result{sent: change.want, writer: c.otherWriter(ctx, change)}
}

// note remembers what a write did: to the sight, to the clocks, and in the metrics.
func (c *convergence) note(change change, result result) error {
	err := result.err
	c.Metrics.wrote(change.kind.Kind, err)
	if change.carries {
		// Clocks count from the last write: an earlier one's time is not that of one whose answer was lost.
		c.notes.touched, c.notes.acked = true, time.Time{}
	}
	if err != nil {
		c.notes.unsure = c.notes.unsure || outcomeUnknown(err)
		return err
	}
	if change.want == nil {
		c.ledger.removed(change.kind, change.found)
	} else {
		c.ledger.wrote(change.kind, change.want)
	}
	c.noteContest(&change, result.sent, result.writer)
	c.sight.replace(change.kind, change.name, change.want)
	if c.written == nil {
		c.written = map[objectRef]bool{}
	}
	c.written[change.object()] = true
	if change.carries {
		c.notes.acked, c.notes.written = c.Clock.Now(), nil
	}
	return nil
}

// outcomeUnknown tells whether a write that failed may have landed all the same: a conflict or a refusal did not.
func outcomeUnknown(err error) bool {
	var refusal *refusalError
	return !errors.Is(err, errConflict) && !errors.As(err, &refusal)
}

// refusalError is a write that the API server will not take as it is.
type refusalError struct{ problem pipeline.Problem }

func (e *refusalError) Error() string { return e.problem.Message }
