package v1

import "slices"

// Describes tells whether the entry describes a VirtualService that Sluice makes, rather than naming one that may be there.
func (v *VirtualService) Describes() bool {
	return len(v.Gateways)+len(v.Hosts)+len(v.ExportTo)+len(v.HTTP)+len(v.TCP)+len(v.TLS) > 0
}

// Described lists the entries of spec.virtualServices that describe a VirtualService, each with its name: the Rollout's where it
// has none.
func (r *Rollout) Described() []VirtualService {
	var described []VirtualService
	for i := range r.Spec.VirtualServices {
		if entry := r.Spec.VirtualServices[i]; entry.Describes() {
			if entry.Name == "" {
				entry.Name = r.Name
			}
			described = append(described, entry)
		}
	}
	return described
}

// Manages tells whether a VirtualService that routes to the host is to be managed, and which of its routes; none: those that the
// default selects. An entry that has no name and describes nothing stands for all that no other entry names.
func (r *Rollout) Manages(virtualService string) (routes []RouteSelector, managed bool) {
	entries := r.Spec.VirtualServices
	at := slices.IndexFunc(entries, func(v VirtualService) bool { return v.Name == virtualService && v.Name != "" })
	if at < 0 && virtualService == r.Name {
		at = slices.IndexFunc(entries, func(v VirtualService) bool { return v.Name == "" && v.Describes() })
	}
	if at < 0 {
		at = slices.IndexFunc(entries, func(v VirtualService) bool { return v.Name == "" && !v.Describes() })
	}
	if at < 0 {
		return nil, len(entries) == 0
	}
	return entries[at].Routes, true
}
