# Counts what ran, by kind, for hack/test. Reads the list of steps, then the logs that name each test.
BEGIN {
    FS = "\t"
    count = split("formatting|clippy|crates alone|unit tests|property tests|documentation examples|" \
        "examples and docs|stale-file checks|API-server tests|demo", kinds, "|")
}

# The steps: those that are one check each count here, the others by their tests.
FILENAME ~ /steps.tsv$/ {
    status[$1] = $2
    seconds[$1] = $3
    if ($1 == "formatting" || $1 == "clippy" || $1 == "demo")
        note($1, $2 == 0)
    next
}

# Which test binary speaks.
/^ +Running / {
    binary = $0
    sub(/.*\(/, "", binary)
    sub(/.*\//, "", binary)
    sub(/-[0-9a-f]+\)$/, "", binary)
}
/^ +Doc-tests / { binary = "doc" }

/^test .* \.\.\. (ok|FAILED)/ {
    note(FILENAME ~ /crates-alone/ ? "crates alone" : kind(binary, $0), $0 !~ /\.\.\. FAILED/)
}

# What a test binary says of itself, to be held against what was counted.
/^test result: / {
    split($0, words, " ")
    said += words[4] + words[6]
    ignored += words[8]
}

function note(kind, is_good) {
    if (is_good) passed[kind]++; else failed[kind]++
}

function kind(binary, line) {
    if (binary == "doc") return "documentation examples"
    if (binary == "cluster" || binary == "control_plane") return "API-server tests"
    if (binary == "fast") return line ~ /^test reference::/ ? "stale-file checks" : "examples and docs"
    if (line ~ /propert/) return "property tests"
    return "unit tests"
}

END {
    printf "\n%-24s %8s %8s\n", "", "passed", "failed"
    for (i = 1; i <= count; i++) {
        kind_ = kinds[i]
        printf "%-24s %8d %8d\n", kind_, passed[kind_], failed[kind_]
        all_passed += passed[kind_]
        all_failed += failed[kind_]
        counted += (kind_ ~ /tests|checks|examples/) ? passed[kind_] + failed[kind_] : 0
        if (passed[kind_] + failed[kind_] == 0) wrong = wrong "nothing ran: " kind_ "\n"
    }
    for (step in seconds) times = times sprintf("  %s %ds", step, seconds[step])
    print "\ntook:" times
    # A test binary that crashes, or does not compile, names no test.
    if (status["tests"] != 0 && all_failed == 0) wrong = wrong "cargo test failed without naming a test\n"
    if (status["crates-alone"] != 0 && failed["crates alone"] == 0) wrong = wrong "hack/check-alone failed\n"
    if (said != counted) wrong = wrong "the test binaries say that " said " tests ran, counted were " counted "\n"
    if (ignored > 0) wrong = wrong ignored " tests were ignored\n"
    if (wrong != "") {
        printf "%s", wrong
        all_failed += gsub(/\n/, "", wrong)
    }
    printf "%d passed, %d failed\n", all_passed, all_failed
    exit all_failed > 0
}
