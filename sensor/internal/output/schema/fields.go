package schema

import (
	"maps"
	"slices"
	"strings"
)

const (
	// full marks fields that a handshake's record has only where handshakes are
	// recorded in full. It is not the number of a dataset.
	full = Set(1 << 7)

	handshakes   = Set(1<<Handshake | 1<<Alert)
	offered      = Set(1<<Hello|1<<Alert) | full
	chains       = Set(1<<Alert) | full
	certificates = Set(1 << Certificate)
	sightings    = Set(1 << Sighting)
	alerts       = Set(1 << Alert)
	stats        = Set(1 << Stats)
)

// x509Fields are those of an x509 object of ECS.
var x509Fields = func() map[string]Type {
	f := map[string]Type{
		"version_number":       Keyword,
		"serial_number":        Keyword,
		"signature_algorithm":  Keyword,
		"public_key_algorithm": Keyword,
		"public_key_size":      Long,
		"public_key_exponent":  Long,
		"public_key_curve":     Keyword,
		"not_before":           Date,
		"not_after":            Date,
		"alternative_names":    Keyword,
	}
	for _, name := range []string{
		"distinguished_name", "common_name", "organization", "organizational_unit",
		"country", "locality", "state_or_province",
	} {
		f["subject."+name] = Keyword
		f["issuer."+name] = Keyword
	}
	return f
}()

// certificateFields are what is known of one certificate: of each in a chain, and
// of the one that a certificate record is about.
var certificateFields = func() map[string]Type {
	f := map[string]Type{
		"position":                     Long, // in the chain, from 0
		"hash.md5":                     Keyword,
		"hash.sha1":                    Keyword,
		"hash.sha256":                  Keyword,
		"spki.sha256":                  Keyword, // of the SubjectPublicKeyInfo
		"tbs.sha256":                   Keyword, // of the TBSCertificate
		"subject":                      Keyword,
		"issuer":                       Keyword,
		"name":                         Keyword, // each common name, DNS name and address
		"serial_number":                Keyword,
		"serial_padded":                Boolean,
		"signature_bits":               Long,
		"not_before":                   Date,
		"not_after":                    Date,
		"validity.days":                Long,
		"validity.days_left":           Long,
		"validity.expired":             Boolean,
		"validity.not_yet_valid":       Boolean,
		"is_ca":                        Boolean,
		"path_len":                     Long,
		"key_usage":                    Keyword,
		"extended_key_usage":           Keyword,
		"policies":                     Keyword,
		"name_constraints.permitted":   Keyword,
		"name_constraints.excluded":    Keyword,
		"subject_key_id":               Keyword,
		"authority_key_id":             Keyword,
		"sct.count":                    Long,
		"x509.alternative_names_count": Long,
		"self_signed":                  Boolean,
		"parse_error":                  Keyword,
		"truncated":                    Boolean, // bytes of it are missing
		"abridged":                     Boolean, // fields of it are left out because the record would be too long
	}
	for name, t := range x509Fields {
		f["x509."+name] = t
	}
	return f
}()

// fields has all fields, sorted by name.
var fields = func() []Field {
	all := make(map[string]*Field)
	add := func(ecs bool, in Set, t Type, names ...string) {
		for _, name := range names {
			f := all[name]
			if f == nil {
				f = &Field{Name: name, Type: t, ECS: ecs}
				all[name] = f
			} else if f.Type != t {
				panic("schema: two types: " + name)
			}
			f.In |= in
		}
	}
	ecs := func(in Set, t Type, names ...string) { add(true, in, t, names...) }
	own := func(in Set, t Type, names ...string) { add(false, in, t, names...) }

	// Of all records.
	ecs(Every, DateNanos, "@timestamp") // ECS has a date, which an index cuts to milliseconds
	ecs(Every, Keyword, "ecs.version", "tags", "labels.*")
	ecs(Every, Keyword, "event.kind", "event.category", "event.type", "event.dataset", "event.id", "event.module", "event.action")
	ecs(Every, Date, "event.start")
	ecs(Every, Long, "event.duration") // nanoseconds
	ecs(Every, Keyword, "observer.name", "observer.vendor", "observer.product", "observer.type", "observer.version",
		"observer.ingress.interface.name", "log.file.path", "agent.type")
	ecs(Every, ConstantKeyword, "data_stream.type", "data_stream.dataset")

	// Of all that is about a flow. The client is the source, as the hellos have it.
	ecs(Flows, IP, "source.ip", "destination.ip")
	ecs(Flows, Long, "source.port", "destination.port")
	ecs(Flows, Keyword, "source.mac", "destination.mac", "destination.domain")
	ecs(Flows, Keyword, "network.transport", "network.type", "network.protocol", "network.application",
		"network.community_id", "network.vlan.id", "network.inner.vlan.id")
	own(Flows, Long, "oddcert.pcap.packet_number")
	own(Flows, Keyword, "oddcert.pcap.filter", "oddcert.tunnel", "oddcert.carrier")

	// The handshake.
	ecs(handshakes, Keyword, "tls.version", "tls.version_protocol", "tls.cipher", "tls.curve", "tls.next_protocol", "tls.server.ja3s")
	ecs(handshakes, Boolean, "tls.established", "tls.resumed")
	ecs(handshakes|sightings, Keyword, "tls.client.server_name")
	ecs(handshakes|1<<Hello, Keyword, "tls.client.ja3")
	own(handshakes|1<<Hello, Keyword, "oddcert.ja4")
	own(handshakes, Keyword, "oddcert.certificates", "oddcert.loss", "oddcert.forged", "oddcert.authority_names",
		"oddcert.raw_key.sha256", "oddcert.client_raw_key.sha256")
	own(handshakes, Boolean, "oddcert.alternative", "oddcert.clock_jump")
	own(1<<Handshake, Long, "oddcert.alerts")

	// What was judged, where it was.
	judged := handshakes | sightings
	own(judged, Keyword, "oddcert.trust.status", "oddcert.key_proof", "oddcert.network", "oddcert.client_network")
	own(chains, Keyword, "oddcert.trust.store", "oddcert.trust.anchor.subject", "oddcert.trust.anchor.sha256")
	own(chains, Text, "oddcert.trust.reasons", "oddcert.key_proof_reason", "oddcert.sct.reasons")
	own(judged, Date, "oddcert.server.openvpn")
	own(chains, Long, "oddcert.prevalence.servers", "oddcert.prevalence.clients", "oddcert.prevalence.names")
	own(handshakes, Keyword, "oddcert.flagged.verdict", "oddcert.flagged.rule", "oddcert.flagged.level", "oddcert.flagged.alert",
		"oddcert.flagged.hash.sha256", "oddcert.shape.fits")
	own(handshakes, Date, "oddcert.flagged.time")
	own(handshakes, Long, "oddcert.shape.certificate_bytes", "oddcert.shape.verify_bytes", "oddcert.shape.finished_bytes")
	own(handshakes, Boolean, "oddcert.shape.coalesced")
	own(chains, Long, "oddcert.sct.count", "oddcert.sct.valid")
	own(chains, Keyword, "oddcert.sct.operators", "oddcert.ocsp.status")
	own(chains, Date, "oddcert.ocsp.revoked")
	ecs(judged, Keyword, "network.direction")
	for _, end := range []string{"source.", "destination."} {
		ecs(judged, Long, end+"as.number")
		ecs(judged, Keyword, end+"as.organization.name", end+"geo.country_iso_code")
	}

	// What the client offers, in the order in which it sends it.
	ecs(offered, Keyword, "tls.client.supported_ciphers")
	own(offered, Keyword, "oddcert.hello.version", "oddcert.hello.supported_versions", "oddcert.hello.extensions",
		"oddcert.hello.supported_groups", "oddcert.hello.signature_algorithms", "oddcert.hello.point_formats", "oddcert.hello.alpn")

	// The leaves.
	for _, party := range []struct {
		name string
		in   Set // beside full handshakes and alerts
	}{{"tls.server.", certificates}, {"tls.client.", 0}} {
		in := chains | party.in
		ecs(in, Keyword, party.name+"hash.md5", party.name+"hash.sha1", party.name+"hash.sha256", party.name+"subject", party.name+"issuer")
		ecs(in, Date, party.name+"not_before", party.name+"not_after")
		ecs(chains, Keyword, party.name+"certificate_chain") // base64 of DER
		for name, t := range x509Fields {
			ecs(in, t, party.name+"x509."+name)
		}
	}
	ecs(handshakes|sightings, Keyword, "tls.server.hash.sha1", "tls.server.hash.sha256", "tls.server.subject", "tls.server.issuer")
	ecs(handshakes|sightings, Date, "tls.server.not_after")

	// Certificates.
	for name, t := range certificateFields {
		own(chains, t, "oddcert.chain."+name, "oddcert.client_chain."+name)
		own(certificates, t, "oddcert.certificate."+name)
	}
	own(handshakes, Keyword, "oddcert.chain.hash.sha256", "oddcert.client_chain.hash.sha256")
	own(alerts, Nested, "oddcert.chain", "oddcert.client_chain")
	own(certificates, Keyword, "oddcert.certificate.role", "oddcert.certificate.der")
	own(sightings, Keyword, "oddcert.certificate.role", "oddcert.certificate.hash.sha256", "oddcert.certificate.spki.sha256",
		"oddcert.certificate.subject", "oddcert.certificate.issuer")
	own(sightings, Long, "oddcert.certificate.position")

	// Whether the server and name are new, or have another certificate than before.
	own(sightings, Keyword, "oddcert.sighting.change", "oddcert.sighting.previous.hash.sha256")

	// The alert.
	ecs(alerts, MatchOnlyText, "message")
	ecs(alerts, Long, "event.severity")
	ecs(alerts, Float, "event.risk_score")
	ecs(alerts, Keyword, "event.reason")
	ecs(alerts, Keyword, "rule.id", "rule.uuid", "rule.name", "rule.description", "rule.category", "rule.ruleset",
		"rule.version", "rule.author", "rule.reference", "rule.license")
	own(alerts, Keyword, "rule.level", "oddcert.rule.false_positives")
	ecs(alerts, Keyword, "threat.framework")
	for _, of := range []string{"threat.tactic.", "threat.technique.", "threat.technique.subtechnique."} {
		ecs(alerts, Keyword, of+"id", of+"name", of+"reference")
	}
	ecs(alerts, Nested, "threat.enrichments")
	for _, of := range []string{"threat.indicator.", "threat.enrichments.indicator."} {
		ecs(alerts, Keyword, of+"type", of+"provider", of+"name")
		ecs(alerts, IP, of+"ip")
	}
	ecs(alerts, Keyword, "threat.enrichments.matched.atomic", "threat.enrichments.matched.field", "threat.enrichments.matched.type")
	ecs(alerts, IP, "related.ip")
	ecs(alerts, Keyword, "related.hosts", "related.hash")
	own(alerts, Keyword, "oddcert.verdict", "oddcert.match.field", "oddcert.match.value", "oddcert.match.list")
	own(alerts, Text, "oddcert.verdict_reasons")
	own(alerts, Long, "oddcert.match.chain_index")
	for _, of := range []string{"oddcert.correlation.", "oddcert.suppressed."} {
		own(alerts, Long, of+"count")
		own(alerts, Date, of+"from", of+"to")
	}
	own(alerts, Keyword, "oddcert.evidence", "oddcert.correlation.group", "oddcert.suppressed.by", "oddcert.suppressed.first_alert")
	for _, end := range []string{"client.", "server."} {
		ecs(alerts, IP, end+"ip")
		ecs(alerts, Long, end+"port")
		ecs(alerts, Keyword, end+"mac", end+"as.organization.name", end+"geo.country_iso_code")
		ecs(alerts, Long, end+"as.number")
	}
	ecs(alerts, Keyword, "server.domain")

	// The statistics.
	own(stats, Long, "oddcert.stats.*")
	own(stats, Date, "oddcert.stats.packets.first", "oddcert.stats.packets.last")
	own(stats, Keyword, "oddcert.stats.captures", "oddcert.stats.failure")
	for list, count := range map[string]string{"no_tls": "frames", "unread": "frames", "weird": "frames", "rules": "matches"} {
		own(stats, Nested, "oddcert.stats."+list)
		own(stats, Keyword, "oddcert.stats."+list+".name")
		own(stats, Long, "oddcert.stats."+list+"."+count)
	}
	own(stats, Keyword, "oddcert.stats.rules.id")
	own(stats, Keyword, "oddcert.stats.links.down", "oddcert.stats.links.silent")
	own(stats, Nested, "oddcert.stats.interfaces")
	own(stats, Keyword, "oddcert.stats.interfaces.name", "oddcert.stats.interfaces.state")
	own(stats, Date, "oddcert.stats.interfaces.since")
	for _, n := range []string{"silence", "changes", "mtu", "speed", "frames", "dropped"} {
		own(stats, Long, "oddcert.stats.interfaces."+n)
	}

	for _, f := range all {
		if f.In&full != 0 {
			f.Full = !f.In.Has(Handshake)
			f.In = f.In&^full | 1<<Handshake
		}
	}

	// What the server sets, or has as another name of something.
	ecs(0, Date, "event.ingested")
	all["event.ingested"].Template = Every
	ecs(0, ConstantKeyword, "data_stream.namespace") // each stream has its own; other shippers set it
	all["data_stream.namespace"].Template = Every
	for name, of := range aliases {
		if all[name] == nil {
			ecs(0, all[of].Type, name)
		}
		f := all[name]
		f.AliasOf = of
		f.Template = all[of].In &^ f.In
	}
	for name, to := range copies {
		f := all[name]
		f.CopyTo = to
		all[to].Template |= f.In &^ all[to].In
	}
	for name, value := range constants {
		f := all[name]
		f.Type = ConstantKeyword
		f.Constant = make(map[Dataset]string)
		for d := range Datasets {
			if v := value(d); v != "" {
				f.Constant[d] = v
			}
		}
	}
	for _, name := range []string{
		"agent.type", "data_stream.type", "data_stream.dataset", "event.action", "event.module",
		"observer.product", "observer.type", "observer.vendor",
	} {
		all[name].Optional = Every
	}
	all["observer.version"].Optional = Flows
	for name, f := range all {
		f.FoldCase = f.Type == Keyword && foldsCase(name)
		switch name {
		case "tls.server.certificate_chain", "tls.client.certificate_chain", "oddcert.certificate.der":
			f.Opaque = true
		}
	}
	sorted := make([]Field, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sorted = append(sorted, *all[name])
	}
	return sorted
}()

// foldsCase reports whether the values of a keyword are hex digits, or may be.
func foldsCase(name string) bool {
	switch last := name[strings.LastIndexByte(name, '.')+1:]; last {
	case "md5", "sha1", "sha256", "ja3", "ja3s", "serial_number", "subject_key_id", "authority_key_id":
		return true
	}
	return name == "related.hash" || name == "oddcert.match.value"
}

// aliases are other names of fields where the record does not repeat them.
var aliases = map[string]string{
	"client.ip":     "source.ip",
	"client.port":   "source.port",
	"client.mac":    "source.mac",
	"server.ip":     "destination.ip",
	"server.port":   "destination.port",
	"server.mac":    "destination.mac",
	"server.domain": "destination.domain",

	"client.as.number":            "source.as.number",
	"client.as.organization.name": "source.as.organization.name",
	"client.geo.country_iso_code": "source.geo.country_iso_code",
	"server.as.number":            "destination.as.number",
	"server.as.organization.name": "destination.as.organization.name",
	"server.geo.country_iso_code": "destination.geo.country_iso_code",

	"agent.name":    "observer.name",
	"agent.version": "observer.version",
}

// copies say where the template collects values to search by, where the record
// does not do it.
var copies = func() map[string]string {
	c := map[string]string{
		"source.ip":                "related.ip",
		"destination.ip":           "related.ip",
		"destination.domain":       "related.hosts",
		"oddcert.chain.name":       "related.hosts",
		"oddcert.certificate.name": "related.hosts",
	}
	for _, of := range []string{"tls.server.", "tls.client.", "oddcert.chain.", "oddcert.client_chain.", "oddcert.certificate."} {
		for _, sum := range []string{"md5", "sha1", "sha256"} {
			c[of+"hash."+sum] = "related.hash"
		}
	}
	c["oddcert.raw_key.sha256"] = "related.hash"
	c["oddcert.client_raw_key.sha256"] = "related.hash"
	return c
}()

// constants are the values that are the same in all records of a dataset.
var constants = map[string]func(Dataset) string{
	"event.kind": func(d Dataset) string {
		switch d {
		case Alert:
			return "alert"
		case Stats:
			return "metric"
		}
		return "event"
	},
	"event.action": func(d Dataset) string {
		return [Datasets]string{
			Handshake:   "tls-handshake",
			Certificate: "certificate-seen",
			Sighting:    "certificate-sighted",
			Hello:       "client-hello-seen",
			Alert:       "rule-matched",
			Stats:       "statistics",
		}[d]
	},
	"event.dataset":       func(d Dataset) string { return "oddcert." + d.String() },
	"event.module":        func(Dataset) string { return "oddcert" },
	"data_stream.type":    func(d Dataset) string { return d.Stream() },
	"data_stream.dataset": func(d Dataset) string { return "oddcert." + d.String() },
	"observer.product":    func(Dataset) string { return "oddcert" },
	"observer.type":       func(Dataset) string { return "sensor" },
	"observer.vendor":     func(Dataset) string { return "oddcert" },
	"agent.type":          func(Dataset) string { return "oddcert" },
}
