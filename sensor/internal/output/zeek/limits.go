package zeek

// The limits of a line.
const (
	// maxString bounds a string, in bytes before escaping, and maxElements a list of
	// names or hashes: what is beyond is left out. They are those that Zeek has for
	// x509.log (Log::default_max_field_string_bytes,
	// X509::default_max_field_container_elements), so that its readers cope.
	maxString   = 4096
	maxElements = 500

	// maxName bounds a distinguished name, as Zeek's buffer for it does
	// (src/file_analysis/analyzer/x509/X509.cc).
	maxName = 2047
)
