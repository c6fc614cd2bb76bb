package bench

import (
	"context"
	"fmt"
	"time"

	istio "istio.io/api/networking/v1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// limit is what a plain client achieves with the writes to VirtualServices that a release, or a rollback, can't do without.
type limit struct {
	// release is three writes for each of N, rollback one: when each of the N was through, since all began.
	release, rollback []time.Duration
	// writes per second.
	rate float64
}

const limitNamespace = "limit"

func (s *scene) limit(ctx context.Context) (*limit, error) {
	if err := s.CreateNamespace(ctx, limitNamespace); err != nil {
		return nil, err
	}
	err := each(ctx, s.n, func(ctx context.Context, i int) error { return s.Client.Create(ctx, plainVirtualService(i)) })
	if err != nil {
		return nil, fmt.Errorf("VirtualServices of a plain client: %w", err)
	}
	l := &limit{}
	for range rounds(s.n) {
		began := time.Now()
		release, err := s.plainWrites(ctx, 3)
		if err != nil {
			return nil, err
		}
		l.rate = 3 * float64(s.n) / time.Since(began).Seconds()
		rollback, err := s.plainWrites(ctx, 1)
		if err != nil {
			return nil, err
		}
		l.release, l.rollback = append(l.release, release...), append(l.rollback, rollback...)
	}
	return l, s.Client.DeleteAllOf(ctx, &networking.VirtualService{}, client.InNamespace(limitNamespace))
}

func plainVirtualService(i int) *networking.VirtualService {
	vs := &networking.VirtualService{}
	vs.Namespace, vs.Name = limitNamespace, plainName(i)
	vs.Spec.Hosts = []string{plainName(i)}
	vs.Spec.Http = []*istio.HTTPRoute{{Route: []*istio.HTTPRouteDestination{
		{Destination: &istio.Destination{Host: plainName(i), Subset: "v1"}},
	}}}
	return vs
}

func plainName(i int) string { return fmt.Sprintf("service-%04d", i) }

// plainWrites patches each VirtualService some times, the N of them at once as far as the workers go.
func (s *scene) plainWrites(ctx context.Context, times int) ([]time.Duration, error) {
	through := make([]time.Duration, s.n)
	began := time.Now()
	for pass := range times {
		s.weight = s.weight%80 + 1 // another one each time, or nothing would be written
		err := each(ctx, s.n, func(ctx context.Context, i int) error {
			vs := plainVirtualService(i)
			patch := fmt.Sprintf(`{"spec":{"http":[{"route":[{"destination":{"host":%q,"subset":"v1"},"weight":%d},{"destination":{"host":%q,"subset":"v2"},"weight":%d}]}]}}`,
				plainName(i), s.weight, plainName(i), 100-s.weight)
			err := s.Client.Patch(ctx, vs, client.RawPatch(types.MergePatchType, []byte(patch)))
			through[i] = time.Since(began)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("write %d of a plain client: %w", pass+1, err)
		}
	}
	return through, nil
}
