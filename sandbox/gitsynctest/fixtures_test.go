package gitsynctest

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/gitserver"
)

// clusterAdmin makes the default service account of a namespace almighty.
func clusterAdmin(namespace string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "default"}},
	}
}

func clone(sync *v1.GitSync, name string) *v1.GitSync {
	return &v1.GitSync{ObjectMeta: metav1.ObjectMeta{Namespace: sync.Namespace, Name: name}, Spec: sync.Spec}
}

// another returns a GitSync of the same namespace with a repository of its own.
func (w *world) another(name string) *v1.GitSync {
	w.t.Helper()
	url, err := git.CreateRepository(w.t.Context(), w.namespace+"-"+name)
	w.must(err)
	work, err := gitserver.Clone(w.t.Context(), url, w.t.TempDir())
	w.must(err)
	w.must(work.Write(w.t.Context(), "deploy/"+name+".yaml", configMap(name, "1")))
	_, err = work.Push(w.t.Context(), "change")
	w.must(err)
	sync := clone(w.get(), name)
	sync.Spec.URL = url
	return sync
}
