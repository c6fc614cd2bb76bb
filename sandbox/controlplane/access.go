package controlplane

import (
	"context"
	"fmt"
	"regexp"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

const (
	adminUser = "admin"
	// tokenSeconds outlives any sandbox; the API server allows it.
	tokenSeconds = 7 * 24 * 60 * 60
)

var unsafeInFileName = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// restConfig is the administrator's. Client-side rate limits are off: the API
// server has its own, and tests of a sandbox should not wait.
func (c *ControlPlane) restConfig(ca []byte) *rest.Config {
	return &rest.Config{
		Host:            c.apiServerURL(),
		BearerToken:     c.token,
		TLSClientConfig: rest.TLSClientConfig{CAData: ca},
		QPS:             -1,
	}
}

// identity is who a kubeconfig speaks for.
type identity struct {
	ca    []byte
	token string
	// as and groups, if set, are impersonated.
	as        string
	groups    []string
	namespace string
}

func (c *ControlPlane) identity(ca []byte) identity { return identity{ca: ca, token: c.token} }

// KubeConfigFor writes a kubeconfig for a user in some groups and returns its
// file. RBAC decides about that user: it has no rights of its own.
func (c *ControlPlane) KubeConfigFor(user string, groups ...string) (string, error) {
	id := c.identity(c.RESTConfig.CAData)
	id.as, id.groups = user, groups
	return c.writeKubeConfig("user-"+user, id)
}

// KubeConfigForServiceAccount writes a kubeconfig with a token that the API server
// issued for a ServiceAccount, which must exist, and returns its file.
func (c *ControlPlane) KubeConfigForServiceAccount(ctx context.Context, namespace, name string) (string, error) {
	client, err := kubernetes.NewForConfig(c.RESTConfig)
	if err != nil {
		return "", err
	}
	seconds := int64(tokenSeconds)
	request, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	return c.writeKubeConfig("serviceaccount-"+namespace+"-"+name,
		identity{ca: c.RESTConfig.CAData, token: request.Status.Token, namespace: namespace})
}

func (c *ControlPlane) writeKubeConfig(name string, id identity) (string, error) {
	const cluster = "sandbox"
	config := api.NewConfig()
	config.Clusters[cluster] = &api.Cluster{Server: c.apiServerURL(), CertificateAuthorityData: id.ca}
	config.AuthInfos[name] = &api.AuthInfo{Token: id.token, Impersonate: id.as, ImpersonateGroups: id.groups}
	config.Contexts[cluster] = &api.Context{Cluster: cluster, AuthInfo: name, Namespace: id.namespace}
	config.CurrentContext = cluster
	path := c.path(kubeconfigsDir, unsafeInFileName.ReplaceAllString(name, "-"))
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return path, nil
}

// CreateNamespace makes a namespace and the default ServiceAccount in it, which a
// controller-manager would make. One that exists is fine.
func (c *ControlPlane) CreateNamespace(ctx context.Context, name string) error {
	client, err := kubernetes.NewForConfig(c.RESTConfig)
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := client.CoreV1().ServiceAccounts(name).Create(ctx, account, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return fmt.Errorf("create ServiceAccount %s/default: %w", name, err)
	}
	return nil
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
