package mesh

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	istio "istio.io/api/networking/v1alpha3"

	v1 "sluice.dev/sluice/api/v1"
)

// routeList is one of the three fields of a VirtualService's spec that hold routes. One object may have them all; a Rollout
// drives routes of the one that its protocol names, and leaves the others alone.
type routeList string

const (
	httpList routeList = "http"
	tcpList  routeList = "tcp"
	tlsList  routeList = "tls"
)

var routeLists = []routeList{httpList, tcpList, tlsList}

// drivenList is the list that a Rollout's protocol names.
func drivenList(r *v1.Rollout) routeList {
	switch r.Spec.Protocol {
	case v1.ProtocolTCP:
		return tcpList
	case v1.ProtocolTLS:
		return tlsList
	}
	return httpList
}

// protocol is the list's in spec.protocol.
func (l routeList) protocol() v1.Protocol {
	switch l {
	case tcpList:
		return v1.ProtocolTCP
	case tlsList:
		return v1.ProtocolTLS
	}
	return v1.ProtocolHTTP
}

// of gives the list's routes, with whatever else stands among them.
func (l routeList) of(vs *unstructured.Unstructured) []any {
	list, _ := specOf(vs)[string(l)].([]any)
	return list
}

// routes lists those without copying them.
func (l routeList) routes(vs *unstructured.Unstructured) []object {
	return objects(child(vs.Object, "spec")[string(l)])
}

// set replaces the list's routes; where there were none and are none, nothing is written.
func (l routeList) set(vs *unstructured.Unstructured, list []any) {
	spec := specOf(vs)
	if _, given := spec[string(l)]; given || len(list) > 0 {
		spec[string(l)] = list
	}
}

func routesOf(vs *unstructured.Unstructured) []any { return httpList.of(vs) }

func setRoutes(vs *unstructured.Unstructured, list []any) { httpList.set(vs, list) }

// createdKey is by what the route of a VirtualService that Sluice made is known: its name, or for TCP and TLS, whose routes have
// none in Istio, its match.
func createdKey(r *v1.Rollout) string {
	list := drivenList(r)
	if list == httpList {
		return createdRoute
	}
	return routeKey(list.routes(createdVirtualService(r, r.Name))[0])
}

// putMade gives a list, in which no route has the key of the one that Sluice makes, that route. One for TCP or TLS changes its
// match, and so its key, with spec.port: it takes the place of the first that leads to the host alone.
func putMade(r *v1.Rollout, list routeList, entries []any, made ...any) []any {
	if list != httpList {
		at := slices.IndexFunc(entries, func(entry any) bool {
			return allOwn(r, asObject(entry))
		})
		if at >= 0 {
			return slices.Replace(slices.Clone(entries), at, at+1, made...)
		}
	}
	return append(entries, made...)
}

// madeTCP takes every connection to the host, or to its port where one is given.
func madeTCP(r *v1.Rollout, destination *istio.Destination) *istio.TCPRoute {
	route := &istio.TCPRoute{Route: []*istio.RouteDestination{{Destination: destination}}}
	if r.Spec.Port != nil {
		route.Match = []*istio.L4MatchAttributes{{Port: r.Spec.Port.Number}}
	}
	return route
}

// madeTLS takes the connections that ask for one of the hosts: Istio wants names that the VirtualService has as well.
func madeTLS(r *v1.Rollout, hosts []string, destination *istio.Destination) *istio.TLSRoute {
	match := &istio.TLSMatchAttributes{SniHosts: slices.Clone(hosts)}
	if r.Spec.Port != nil {
		match.Port = r.Spec.Port.Number
	}
	return &istio.TLSRoute{Match: []*istio.TLSMatchAttributes{match}, Route: []*istio.RouteDestination{{Destination: destination}}}
}

// spellings are the names by which clients in the mesh may ask for a host: a Service's has four. A proxy that has a TLS route for
// a Service closes connections that ask for a name without one.
func spellings(host, namespace string) []string {
	service, in, ok := ServiceOf(host, namespace)
	if !ok {
		return []string{host}
	}
	return []string{service, service + "." + in, service + "." + in + ".svc", HostKey(host, namespace)}
}
