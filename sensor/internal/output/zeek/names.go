package zeek

// shortNames has the attributes of distinguished names that OpenSSL knows, by its short
// names: "openssl list -objects" tells them. Those that no name has are left out.
var shortNames = map[string]string{
	"0.9.2342.19200300.100.1.1":  "UID",
	"0.9.2342.19200300.100.1.2":  "textEncodedORAddress",
	"0.9.2342.19200300.100.1.3":  "mail",
	"0.9.2342.19200300.100.1.4":  "info",
	"0.9.2342.19200300.100.1.6":  "roomNumber",
	"0.9.2342.19200300.100.1.9":  "host",
	"0.9.2342.19200300.100.1.25": "DC",
	"0.9.2342.19200300.100.1.37": "associatedDomain",
	"0.9.2342.19200300.100.1.38": "associatedName",
	"0.9.2342.19200300.100.1.40": "personalTitle",
	"0.9.2342.19200300.100.1.41": "mobileTelephoneNumber",
	"0.9.2342.19200300.100.1.44": "uid",
	"0.9.2342.19200300.100.1.45": "organizationalStatus",
	"0.9.2342.19200300.100.1.48": "buildingName",
	"1.2.643.3.131.1.1":          "INN",
	"1.2.643.100.1":              "OGRN",
	"1.2.643.100.3":              "SNILS",
	"1.2.643.100.5":              "OGRNIP",
	"1.2.643.100.111":            "subjectSignTool",
	"1.2.643.100.112":            "issuerSignTool",
	"1.2.643.100.113":            "classSignTool",
	"1.2.840.113549.1.9.1":       "emailAddress",
	"1.2.840.113549.1.9.2":       "unstructuredName",
	"1.2.840.113549.1.9.7":       "challengePassword",
	"1.2.840.113549.1.9.8":       "unstructuredAddress",
	"1.2.840.113549.1.9.20":      "friendlyName",
	"1.3.6.1.4.1.311.60.2.1.1":   "jurisdictionL",
	"1.3.6.1.4.1.311.60.2.1.2":   "jurisdictionST",
	"1.3.6.1.4.1.311.60.2.1.3":   "jurisdictionC",
	"2.5.4.3":                    "CN",
	"2.5.4.4":                    "SN",
	"2.5.4.5":                    "serialNumber",
	"2.5.4.6":                    "C",
	"2.5.4.7":                    "L",
	"2.5.4.8":                    "ST",
	"2.5.4.9":                    "street",
	"2.5.4.10":                   "O",
	"2.5.4.11":                   "OU",
	"2.5.4.12":                   "title",
	"2.5.4.13":                   "description",
	"2.5.4.14":                   "searchGuide",
	"2.5.4.15":                   "businessCategory",
	"2.5.4.16":                   "postalAddress",
	"2.5.4.17":                   "postalCode",
	"2.5.4.18":                   "postOfficeBox",
	"2.5.4.19":                   "physicalDeliveryOfficeName",
	"2.5.4.20":                   "telephoneNumber",
	"2.5.4.21":                   "telexNumber",
	"2.5.4.22":                   "teletexTerminalIdentifier",
	"2.5.4.23":                   "facsimileTelephoneNumber",
	"2.5.4.24":                   "x121Address",
	"2.5.4.25":                   "internationaliSDNNumber",
	"2.5.4.26":                   "registeredAddress",
	"2.5.4.27":                   "destinationIndicator",
	"2.5.4.28":                   "preferredDeliveryMethod",
	"2.5.4.29":                   "presentationAddress",
	"2.5.4.30":                   "supportedApplicationContext",
	"2.5.4.31":                   "member",
	"2.5.4.32":                   "owner",
	"2.5.4.33":                   "roleOccupant",
	"2.5.4.34":                   "seeAlso",
	"2.5.4.35":                   "userPassword",
	"2.5.4.36":                   "userCertificate",
	"2.5.4.37":                   "cACertificate",
	"2.5.4.38":                   "authorityRevocationList",
	"2.5.4.39":                   "certificateRevocationList",
	"2.5.4.40":                   "crossCertificatePair",
	"2.5.4.41":                   "name",
	"2.5.4.42":                   "GN",
	"2.5.4.43":                   "initials",
	"2.5.4.44":                   "generationQualifier",
	"2.5.4.45":                   "x500UniqueIdentifier",
	"2.5.4.46":                   "dnQualifier",
	"2.5.4.47":                   "enhancedSearchGuide",
	"2.5.4.48":                   "protocolInformation",
	"2.5.4.49":                   "distinguishedName",
	"2.5.4.50":                   "uniqueMember",
	"2.5.4.51":                   "houseIdentifier",
	"2.5.4.52":                   "supportedAlgorithms",
	"2.5.4.53":                   "deltaRevocationList",
	"2.5.4.54":                   "dmdName",
	"2.5.4.65":                   "pseudonym",
	"2.5.4.72":                   "role",
	"2.5.4.97":                   "organizationIdentifier",
	"2.5.4.98":                   "c3",
	"2.5.4.99":                   "n3",
	"2.5.4.100":                  "dnsName",
}

// longNames has algorithms of keys and of signatures by OpenSSL's long names.
var longNames = map[string]string{
	"1.2.156.10197.1.301":     "sm2",
	"1.2.156.10197.1.501":     "SM2-with-SM3",
	"1.2.156.10197.1.504":     "sm3WithRSAEncryption",
	"1.2.643.2.2.3":           "GOST R 34.11-94 with GOST R 34.10-2001",
	"1.2.643.2.2.4":           "GOST R 34.11-94 with GOST R 34.10-94",
	"1.2.643.2.2.19":          "GOST R 34.10-2001",
	"1.2.643.2.2.20":          "GOST R 34.10-94",
	"1.2.643.7.1.1.1.1":       "GOST R 34.10-2012 with 256 bit modulus",
	"1.2.643.7.1.1.1.2":       "GOST R 34.10-2012 with 512 bit modulus",
	"1.2.643.7.1.1.3.2":       "GOST R 34.10-2012 with GOST R 34.11-2012 (256 bit)",
	"1.2.643.7.1.1.3.3":       "GOST R 34.10-2012 with GOST R 34.11-2012 (512 bit)",
	"1.2.840.10040.4.1":       "dsaEncryption",
	"1.2.840.10040.4.3":       "dsaWithSHA1",
	"1.2.840.10045.2.1":       "id-ecPublicKey",
	"1.2.840.10045.4.1":       "ecdsa-with-SHA1",
	"1.2.840.10045.4.3.1":     "ecdsa-with-SHA224",
	"1.2.840.10045.4.3.2":     "ecdsa-with-SHA256",
	"1.2.840.10045.4.3.3":     "ecdsa-with-SHA384",
	"1.2.840.10045.4.3.4":     "ecdsa-with-SHA512",
	"1.2.840.10046.2.1":       "X9.42 DH",
	"1.2.840.113549.1.1.1":    "rsaEncryption",
	"1.2.840.113549.1.1.2":    "md2WithRSAEncryption",
	"1.2.840.113549.1.1.3":    "md4WithRSAEncryption",
	"1.2.840.113549.1.1.4":    "md5WithRSAEncryption",
	"1.2.840.113549.1.1.5":    "sha1WithRSAEncryption",
	"1.2.840.113549.1.1.7":    "rsaesOaep",
	"1.2.840.113549.1.1.10":   "rsassaPss",
	"1.2.840.113549.1.1.11":   "sha256WithRSAEncryption",
	"1.2.840.113549.1.1.12":   "sha384WithRSAEncryption",
	"1.2.840.113549.1.1.13":   "sha512WithRSAEncryption",
	"1.2.840.113549.1.1.14":   "sha224WithRSAEncryption",
	"1.2.840.113549.1.1.15":   "sha512-224WithRSAEncryption",
	"1.2.840.113549.1.1.16":   "sha512-256WithRSAEncryption",
	"1.3.14.3.2.3":            "md5WithRSA",
	"1.3.14.3.2.12":           "dsaEncryption-old",
	"1.3.14.3.2.13":           "dsaWithSHA",
	"1.3.14.3.2.15":           "shaWithRSAEncryption",
	"1.3.14.3.2.27":           "dsaWithSHA1-old",
	"1.3.14.3.2.29":           "sha1WithRSA",
	"1.3.36.3.3.1.2":          "ripemd160WithRSA",
	"1.3.101.110":             "X25519",
	"1.3.101.111":             "X448",
	"1.3.101.112":             "ED25519",
	"1.3.101.113":             "ED448",
	"2.16.840.1.101.3.4.3.1":  "dsa_with_SHA224",
	"2.16.840.1.101.3.4.3.2":  "dsa_with_SHA256",
	"2.16.840.1.101.3.4.3.3":  "dsa_with_SHA384",
	"2.16.840.1.101.3.4.3.4":  "dsa_with_SHA512",
	"2.16.840.1.101.3.4.3.5":  "dsa_with_SHA3-224",
	"2.16.840.1.101.3.4.3.6":  "dsa_with_SHA3-256",
	"2.16.840.1.101.3.4.3.7":  "dsa_with_SHA3-384",
	"2.16.840.1.101.3.4.3.8":  "dsa_with_SHA3-512",
	"2.16.840.1.101.3.4.3.9":  "ecdsa_with_SHA3-224",
	"2.16.840.1.101.3.4.3.10": "ecdsa_with_SHA3-256",
	"2.16.840.1.101.3.4.3.11": "ecdsa_with_SHA3-384",
	"2.16.840.1.101.3.4.3.12": "ecdsa_with_SHA3-512",
	"2.16.840.1.101.3.4.3.13": "RSA-SHA3-224",
	"2.16.840.1.101.3.4.3.14": "RSA-SHA3-256",
	"2.16.840.1.101.3.4.3.15": "RSA-SHA3-384",
	"2.16.840.1.101.3.4.3.16": "RSA-SHA3-512",
}

// longName is OpenSSL's long name of an algorithm, or the object identifier when it
// is not known here.
func longName(oid string) string {
	if name, ok := longNames[oid]; ok {
		return name
	}
	return oid
}

// keyCurve is OpenSSL's name of the curve of a key; empty for one that has none.
func keyCurve(name string) string {
	switch name {
	case "P-192":
		return "prime192v1"
	case "P-224":
		return "secp224r1"
	case "P-256":
		return "prime256v1"
	case "P-384":
		return "secp384r1"
	case "P-521":
		return "secp521r1"
	case "explicit":
		return ""
	}
	return name
}
