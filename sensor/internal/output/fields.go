package output

// Fields has every field that records use, by its dotted name, with its type in
// Elasticsearch: those of ECS 9.4 as ECS has them, the others as they are meant
// to be searched. A name that ends in ".*" stands for all names below it that
// are not there themselves.
var Fields = func() map[string]string {
	f := map[string]string{
		"@timestamp":  "date",
		"ecs.version": "keyword",
		"message":     "text",

		"event.kind":       "keyword",
		"event.category":   "keyword",
		"event.type":       "keyword",
		"event.action":     "keyword",
		"event.dataset":    "keyword",
		"event.module":     "keyword",
		"event.id":         "keyword",
		"event.start":      "date",
		"event.created":    "date",
		"event.severity":   "long",
		"event.risk_score": "float",
		"event.reason":     "keyword",

		"server.domain": "keyword",

		"network.transport":     "keyword",
		"network.type":          "keyword",
		"network.protocol":      "keyword",
		"network.community_id":  "keyword",
		"network.direction":     "keyword",
		"network.vlan.id":       "keyword",
		"network.inner.vlan.id": "keyword",

		"observer.type":                   "keyword",
		"observer.product":                "keyword",
		"observer.version":                "keyword",
		"observer.name":                   "keyword",
		"observer.ingress.interface.name": "keyword",
		"log.file.path":                   "keyword",

		"tls.version":                  "keyword",
		"tls.version_protocol":         "keyword",
		"tls.cipher":                   "keyword",
		"tls.curve":                    "keyword",
		"tls.next_protocol":            "keyword",
		"tls.established":              "boolean",
		"tls.resumed":                  "boolean",
		"tls.client.server_name":       "keyword",
		"tls.client.ja3":               "keyword",
		"tls.client.supported_ciphers": "keyword",
		"tls.server.ja3s":              "keyword",

		"rule.id":          "keyword",
		"rule.uuid":        "keyword",
		"rule.name":        "keyword",
		"rule.description": "keyword",
		"rule.category":    "keyword",
		"rule.ruleset":     "keyword",
		"rule.version":     "keyword",
		"rule.author":      "keyword",
		"rule.reference":   "keyword",
		"rule.license":     "keyword",

		"threat.framework":                        "keyword",
		"threat.tactic.id":                        "keyword",
		"threat.tactic.name":                      "keyword",
		"threat.tactic.reference":                 "keyword",
		"threat.technique.id":                     "keyword",
		"threat.technique.name":                   "keyword",
		"threat.technique.reference":              "keyword",
		"threat.technique.subtechnique.id":        "keyword",
		"threat.technique.subtechnique.name":      "keyword",
		"threat.technique.subtechnique.reference": "keyword",
		"threat.enrichments":                      "nested",
		"threat.enrichments.indicator.type":       "keyword",
		"threat.enrichments.indicator.provider":   "keyword",
		"threat.enrichments.matched.atomic":       "keyword",
		"threat.enrichments.matched.field":        "keyword",
		"threat.enrichments.matched.type":         "keyword",

		"related.ip":    "ip",
		"related.hosts": "keyword",
		"related.hash":  "keyword",

		"oddcert.pcap.packet_number":    "long",
		"oddcert.tunnel":                "keyword",
		"oddcert.carrier":               "keyword",
		"oddcert.ja4":                   "keyword",
		"oddcert.certificates":          "keyword",
		"oddcert.loss":                  "keyword",
		"oddcert.forged":                "keyword",
		"oddcert.alternative":           "boolean",
		"oddcert.clock_jump":            "boolean",
		"oddcert.authority_names":       "keyword",
		"oddcert.raw_key.sha256":        "keyword",
		"oddcert.client_raw_key.sha256": "keyword",
		"oddcert.verdict":               "keyword",
		"oddcert.verdict_reasons":       "text",
		"oddcert.match.field":           "keyword",
		"oddcert.match.value":           "keyword",
		"oddcert.match.list":            "keyword",
		"oddcert.match.chain_index":     "long",

		"oddcert.stats.*":             "long",
		"oddcert.stats.no_tls":        "nested",
		"oddcert.stats.no_tls.name":   "keyword",
		"oddcert.stats.no_tls.frames": "long",
		"oddcert.stats.unread":        "nested",
		"oddcert.stats.unread.name":   "keyword",
		"oddcert.stats.unread.frames": "long",
		"oddcert.stats.rules":         "nested",
		"oddcert.stats.rules.id":      "keyword",
		"oddcert.stats.rules.name":    "keyword",
		"oddcert.stats.rules.matches": "long",
	}
	for _, end := range []string{"source", "destination", "client", "server"} {
		f[end+".ip"] = "ip"
		f[end+".port"] = "long"
		f[end+".mac"] = "keyword"
	}
	for _, party := range []string{"tls.client", "tls.server"} {
		for name, kind := range map[string]string{
			"certificate_chain": "keyword", // base64 of DER, not to be searched
			"hash.md5":          "keyword",
			"hash.sha1":         "keyword",
			"hash.sha256":       "keyword",
			"subject":           "keyword",
			"issuer":            "keyword",
			"not_before":        "date",
			"not_after":         "date",
		} {
			f[party+"."+name] = kind
		}
	}
	for _, chain := range []string{"oddcert.chain", "oddcert.client_chain"} {
		for name, kind := range map[string]string{
			"position":                     "long",
			"hash.md5":                     "keyword",
			"hash.sha1":                    "keyword",
			"hash.sha256":                  "keyword",
			"spki.sha256":                  "keyword",
			"tbs.sha256":                   "keyword",
			"subject":                      "keyword",
			"issuer":                       "keyword",
			"name":                         "keyword",
			"serial_number":                "keyword",
			"serial_padded":                "boolean",
			"signature_bits":               "long",
			"not_before":                   "date",
			"not_after":                    "date",
			"validity.days":                "long",
			"validity.days_left":           "long",
			"validity.expired":             "boolean",
			"validity.not_yet_valid":       "boolean",
			"is_ca":                        "boolean",
			"path_len":                     "long",
			"key_usage":                    "keyword",
			"extended_key_usage":           "keyword",
			"policies":                     "keyword",
			"name_constraints.permitted":   "keyword",
			"name_constraints.excluded":    "keyword",
			"subject_key_id":               "keyword",
			"authority_key_id":             "keyword",
			"sct.count":                    "long",
			"x509.alternative_names_count": "long",
			"self_signed":                  "boolean",
			"parse_error":                  "keyword",
			"truncated":                    "boolean",
			"abridged":                     "boolean",
		} {
			f[chain+"."+name] = kind
		}
	}
	for _, of := range []string{"tls.client", "tls.server", "oddcert.chain", "oddcert.client_chain"} {
		for name, kind := range map[string]string{
			"version_number":       "keyword",
			"serial_number":        "keyword",
			"signature_algorithm":  "keyword",
			"public_key_algorithm": "keyword",
			"public_key_size":      "long",
			"public_key_exponent":  "long",
			"public_key_curve":     "keyword",
			"not_before":           "date",
			"not_after":            "date",
			"alternative_names":    "keyword",
		} {
			f[of+".x509."+name] = kind
		}
		for _, name := range []string{
			"distinguished_name", "common_name", "organization", "organizational_unit",
			"country", "locality", "state_or_province",
		} {
			f[of+".x509.subject."+name] = "keyword"
			f[of+".x509.issuer."+name] = "keyword"
		}
	}
	return f
}()
