package sidecar

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// The headers in which two proxies tell each other who they are, as Istio's
// metadata exchange names them. Applications never see them.
const (
	peerHeader   = "X-Envoy-Peer-Metadata"
	peerIDHeader = "X-Envoy-Peer-Metadata-Id"
)

const unknown = "unknown"

// peer is what one proxy knows about the workload at the other end.
type peer struct {
	Workload  string `json:"workload,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	App       string `json:"app,omitempty"`
	Version   string `json:"version,omitempty"`
	Service   string `json:"canonicalService,omitempty"`
	Revision  string `json:"canonicalRevision,omitempty"`
	Cluster   string `json:"cluster,omitempty"`
	Account   string `json:"account,omitempty"` // the service account
}

func makePeer(o Options) peer {
	labels := o.Labels
	return peer{
		Workload:  o.Workload,
		Namespace: o.Namespace,
		App:       labels["app"],
		Version:   labels["version"],
		Service:   firstOf(labels["service.istio.io/canonical-name"], labels["app.kubernetes.io/name"], labels["app"], o.Workload),
		Revision:  firstOf(labels["service.istio.io/canonical-revision"], labels["app.kubernetes.io/version"], labels["version"], "latest"),
		Cluster:   clusterID,
		Account:   o.ServiceAccount,
	}
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func orUnknown(s string) string { return firstOf(s, unknown) }

func (p peer) encode() string {
	raw, err := json.Marshal(p)
	if err != nil { // a struct of strings always marshals
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// takePeer reads the other side's metadata and removes it from the headers.
func takePeer(h http.Header) (peer, bool) {
	encoded := h.Get(peerHeader)
	h.Del(peerHeader)
	h.Del(peerIDHeader)
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || encoded == "" {
		return peer{}, false
	}
	var p peer
	return p, json.Unmarshal(raw, &p) == nil
}

// endpointPeer reads what istiod says about an endpoint's workload:
// "workload;namespace;canonical service;canonical revision;cluster". App and
// version are not part of it: Envoy reports them as unknown as well when the
// other side never answered.
func endpointPeer(meta *corev3.Metadata) peer {
	field := meta.GetFilterMetadata()["istio"].GetFields()["workload"].GetStringValue()
	parts := strings.Split(field, ";")
	if len(parts) < 5 {
		return peer{}
	}
	return peer{Workload: parts[0], Namespace: parts[1], Service: parts[2], Revision: firstOf(parts[3], "latest"), Cluster: parts[4]}
}

// service is what a cluster's metadata says about the service behind it.
type service struct{ Host, Name, Namespace string }

func clusterService(meta *corev3.Metadata) service {
	services := meta.GetFilterMetadata()["istio"].GetFields()["services"].GetListValue().GetValues()
	if len(services) == 0 {
		return service{}
	}
	f := services[0].GetStructValue().GetFields()
	return service{
		Host:      f["host"].GetStringValue(),
		Name:      f["name"].GetStringValue(),
		Namespace: f["namespace"].GetStringValue(),
	}
}
