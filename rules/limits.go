package rules

import "time"

const (
	// knownCertificates bounds the certificates that a matcher remembers and so keeps in memory.
	knownCertificates = 8192
	// namesAtOnce bounds how many of the names that a certificate does not keep are read at once: 1 MiB may have 500,000.
	namesAtOnce = 256
	// maxHits bounds what the index finds before it removes duplicates: a certificate may have very many names.
	maxHits = 4096
	// maxRuleFile bounds a file of rules, maxDocument one of them: YAML takes some hundred times its size in memory while it is read.
	maxRuleFile = 16 << 20
	maxDocument = 1 << 20
	// maxListFile bounds a list file, some ten million hashes.
	maxListFile = 1 << 30
	// maxListLine bounds a line of a list file.
	maxListLine = 64 << 10
	// maxRules bounds the rules of a set.
	maxRules = 200_000
	// maxYAMLDepth bounds how deep YAML nests: its parser recurses. A rule needs five levels.
	maxYAMLDepth = 32
	// maxYAMLKeys bounds the keys of a rule, with the entries that have no value: the YAML parser's stack and time grow with those
	// of a map, its time as their square.
	maxYAMLKeys = 2000
	// maxYAMLEntries bounds the "-" of block sequences on one line, which nest without indentation.
	maxYAMLEntries = 8
	// maxConditionSize bounds a condition in bytes, maxConditionDepth its parentheses and negations: its parser recurses.
	maxConditionSize  = 64 << 10
	maxConditionDepth = 64
	// maxConditionNodes bounds what a condition becomes: "1 of them" repeated grows with the product of both.
	maxConditionNodes = 100_000
	// maxTitle bounds the characters of a title, as Sigma does.
	maxTitle = 256
	// maxRegex bounds a regular expression in bytes, maxRegexSize what it is with all counted repeats written out: RE2's time is the
	// product of that and the length of a value, and "((a?){30}){30}" a hundred times over takes seconds for a name.
	maxRegex     = 4 << 10
	maxRegexSize = 10_000
	// maxProblems bounds the problems reported of one file; a list of the wrong kind has one on each line.
	maxProblems = 100
	// maxTokenShown bounds how much of a token a problem repeats, in bytes.
	maxTokenShown = 80
	// maxValueShown bounds a value of the wire in a match and its reason, in bytes.
	maxValueShown = 256
	// maxValuesShown bounds the values of one field in a reason.
	maxValuesShown = 8
	// maxSuggested bounds the names of rules among which the nearest to a wrong one is looked for.
	maxSuggested = 1000
	// maxFiltered bounds the rules that a filter names.
	maxFiltered = 1000
	// maxCorrelated bounds the rules that a correlation rule refers to, maxGroupBy the fields that it groups by and those that a
	// suppression looks at.
	maxCorrelated = 64
	maxGroupBy    = 8
	// maxCorrelationDepth bounds how deep correlations refer to correlations, with the rules at the bottom.
	maxCorrelationDepth = 8
	// maxCorrelationCount and maxCorrelationValues bound the counts in conditions: a group holds 8 bytes for each match that is
	// to be counted, and 24 for each value, which are looked through for each match.
	maxCorrelationCount  = 10_000
	maxCorrelationValues = 1_000
	// maxTimespan bounds the timespan of a correlation: what is counted is in memory, and a sensor is restarted now and then.
	maxTimespan = 31 * 24 * time.Hour
	// maxGroupsAtOnce bounds the groups in which one match is counted, and the values that it counts: fields may have many.
	maxGroupsAtOnce = 16
	// maxCorrelationMemory bounds what all groups hold together, in bytes, as far as it is known.
	maxCorrelationMemory = 16 << 20
	// minSuppression and maxSuppression bound the time for which further matches are counted instead of raised.
	minSuppression = time.Second
	maxSuppression = 30 * 24 * time.Hour
	// maxSuppressionMemory bounds what all suppressions under way hold together, in bytes, as far as it is known.
	maxSuppressionMemory = 16 << 20
	// maxSelection bounds the text of a selection in bytes.
	maxSelection = 64 << 10
	// maxRecordDepth bounds how deep the objects and lists of a record nest in which a selection looks for fields: its reader
	// recurses. Records have six levels.
	maxRecordDepth = 32
	// maxSpansKept bounds the values whose places a selection keeps room for when it is done with a record, 24 bytes each.
	maxSpansKept = 4096
)
