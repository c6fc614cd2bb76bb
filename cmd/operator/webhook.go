package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/webhook"
)

// addWebhook adds the hook port, which every replica opens.
func addWebhook(mgr manager.Manager, f *flags, logger logr.Logger) error {
	if f.hookAddress == noAddress {
		return nil
	}
	// A replica that is not ready for GitSyncs would take them for strangers': its readiness waits for this cache as well.
	if _, err := mgr.GetCache().GetInformer(context.Background(), &v1.GitSync{}, cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watching GitSyncs for the hook port: %w", err)
	}
	server := webhook.NewServer(f.hookAddress, webhook.Dependencies{
		Find: func(ctx context.Context, key types.NamespacedName) (*v1.GitSync, error) {
			found := &v1.GitSync{}
			return found, mgr.GetClient().Get(ctx, key, found)
		},
		Secret: func(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error) {
			secret := &corev1.Secret{}
			return secret, mgr.GetAPIReader().Get(ctx, key, secret)
		},
		Mark: func(ctx context.Context, key types.NamespacedName, mark webhook.Mark) error {
			return writeMark(ctx, mgr.GetClient(), key, mark)
		},
		Clock: clock.RealClock{}, Log: logger.WithName("webhook"),
	})
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("adding the hook port: %w", err)
	}
	return nil
}

// writeMark patches a GitSync's status, whatever else changed in it meanwhile.
func writeMark(ctx context.Context, c client.Client, key types.NamespacedName, mark webhook.Mark) error {
	patch, err := json.Marshal(map[string]any{"status": mark})
	if err != nil {
		return err
	}
	marked := &v1.GitSync{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	if err := c.Status().Patch(ctx, marked, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("write status.lastDelivery: %w", err)
	}
	return nil
}
