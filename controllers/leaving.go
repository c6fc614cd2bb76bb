package controllers

import (
	"context"
	"fmt"
)

// noteOwners adds, to the reasons for which VirtualServices that leave have to stay, that somebody else has made them his own: a manifest
// in Git perhaps, which came when the entry went. The cache keeps no managers, so that it is asked live; in mid-run once.
func (c *convergence) noteOwners(ctx context.Context, leaving map[string]string) error {
	inMidRun := c.rollout.Status.Run != nil
	owners := map[string]string{}
	for name, why := range leaving {
		if why != "" {
			continue
		}
		owner, known := c.notes.owners[name]
		if !known || !inMidRun {
			live, err := c.liveObject(ctx, kindVirtualService, keyOf(c.key.Namespace, name))
			switch {
			case err != nil && inMidRun: // no read is to hold up a way back
				leaving[name] = "who else writes it could not be read"
				continue
			case err != nil:
				return err
			case live == nil:
				continue
			}
			owner = specManager(live.GetManagedFields())
		}
		if owners[name] = owner; owner != "" {
			leaving[name] = fmt.Sprintf("field manager %s has fields of its spec", owner)
		}
	}
	c.notes.owners = owners
	return nil
}

// left are those of the VirtualServices that a cache does not have which the API server does not have either: what is forgotten is
// looked after no more.
func (c *convergence) left(ctx context.Context, names []string) ([]string, error) {
	var left []string
	for _, name := range names {
		if c.sight.meshProblem != nil || c.rollout.Status.Run != nil {
			break // in mid-run nothing is forgotten, and no read is to hold up a way back
		}
		switch live, err := c.liveObject(ctx, kindVirtualService, keyOf(c.key.Namespace, name)); {
		case err != nil:
			return nil, err
		case live == nil:
			left = append(left, name)
		}
	}
	return left, nil
}
