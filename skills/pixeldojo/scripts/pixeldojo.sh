#!/bin/sh
# A client of the PixelDojo API in one file. It needs curl, jq 1.6 or later and a POSIX shell.
# `pixeldojo.sh help` says how to use it. Results go to standard output, all else to standard error.
set -eu

BASE=${PIXELDOJO_BASE_URL:-http://127.0.0.1:8787}
TIMEOUT=600 RETRIES=4 OUT='' IDEMPOTENCY='' QUERY='' JOB='' ARGUMENTS=''

usage() {
    cat <<'HELP'
pixeldojo.sh models [MODEL]                          the models with their prices, or one with its inputs
pixeldojo.sh schema MODEL                            the JSON Schema of a model's inputs
pixeldojo.sh estimate MODEL [PROMPT] [NAME=VALUE]…   what a job would cost; nothing runs
pixeldojo.sh generate MODEL [PROMPT] [NAME=VALUE]…   run, wait, download; prints the names of the files
pixeldojo.sh run MODEL [PROMPT] [NAME=VALUE]…        submit only; prints the receipt with the jobId
pixeldojo.sh wait JOB                                wait for a job and download its results
pixeldojo.sh status JOB                              a job as it is now
pixeldojo.sh list                                    your latest jobs
pixeldojo.sh cancel JOB                              cancel a job; its credits come back
pixeldojo.sh upload FILE                             a picture as the data URI that a job takes
pixeldojo.sh balance                                 credits and limits

VALUE is JSON or text; NAME=@FILE sends a picture (PNG, JPEG, WebP) along with the job.
  -o PATH                where to save: a file or a folder; several files get -1, -2, …
  --timeout SECONDS      how long to wait, by default 600; the job goes on after that
  --limit N, --status S, --model MODEL, --cursor C     for list
  --idempotency-key KEY  submit again under the same key: the same job, charged once
  --retries N            how often to try again when the service can't be reached or is busy, by default 4

PIXELDOJO_API_KEY      the key, or PIXELDOJO_API_KEY_FILE; without them the one of the `pixeldojo` command is used,
                       for the service that runs on this machine
PIXELDOJO_BASE_URL     the service, by default http://127.0.0.1:8787

Exit codes: 0 done; 1 the job failed, or something else did; 2 wrong arguments or inputs; 3 no valid key, or no such
thing (any more); 4 not enough credits; 5 no service answers; 6 waited long enough; 130 interrupted
HELP
}

note() { printf '%s\n' "$*" >&2; }

# die CODE MESSAGE [HINT]…
die() {
    code=$1
    note "error: $2"
    shift 2
    for hint in "$@"; do note "  $hint"; done
    exit "$code"
}

# A word that is safe in an address: an id, a number.
word() {
    case $1 in
        '' | . | .. | *[!A-Za-z0-9._-]*) die 2 "$2: '$1' can't be right" "$3" ;;
    esac
}

address() {
    BASE=${BASE%/}
    case $BASE in
        *[!]A-Za-z0-9:/._~%+[-]*) wrong=yes ;;
        http://?* | https://?*) wrong='' ;;
        *) wrong=yes ;;
    esac
    [ -z "$wrong" ] || die 2 "PIXELDOJO_BASE_URL: '$BASE' is no address" 'Write http://host:port.'
    BASE=${BASE%/api/v1}
}

# The command line's own key is for the service on this machine alone.
stored_key() {
    data=${PIXELDOJO_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/pixeldojo}
    [ -r "$data/cli-key" ] && [ -r "$data/service.json" ] || return 0
    [ "$(jq -r '.address // ""' "$data/service.json" 2>/dev/null)" = "$BASE" ] || return 0
    cat "$data/cli-key"
}

find_key() {
    KEY=${PIXELDOJO_API_KEY:-}
    if [ -z "$KEY" ] && [ -n "${PIXELDOJO_API_KEY_FILE:-}" ]; then
        [ -r "$PIXELDOJO_API_KEY_FILE" ] || die 2 "PIXELDOJO_API_KEY_FILE: can't read '$PIXELDOJO_API_KEY_FILE'"
        KEY=$(tr -d ' \t\r\n' <"$PIXELDOJO_API_KEY_FILE")
    fi
    [ -n "$KEY" ] || KEY=$(stored_key)
    [ -n "$KEY" ] || die 3 "there is no API key for $BASE" 'Set PIXELDOJO_API_KEY; whoever runs the service makes keys.'
    case $KEY in
        *[!A-Za-z0-9._-]*) die 3 'the API key contains characters that no key has' 'Copy PIXELDOJO_API_KEY anew.' ;;
    esac
}

# call METHOD PATH [BODY-FILE]: the answer in $TMP/answer, which is a JSON object. Only curl's standard input sees the
# key: arguments can be read by everybody on the machine.
call() {
    status=$({
        printf 'url = "%s/api/v1%s"\nrequest = "%s"\n' "$BASE" "$2" "$1"
        [ -z "${KEY:-}" ] || printf 'header = "Authorization: Bearer %s"\n' "$KEY"
        [ -z "${3:-}" ] || printf 'header = "Content-Type: application/json"\ndata-binary = "@%s"\n' "$3"
        [ -z "$IDEMPOTENCY" ] || printf 'header = "Idempotency-Key: %s"\n' "$IDEMPOTENCY"
        [ -z "${PREFER:-}" ] || printf 'header = "Prefer: %s"\n' "$PREFER"
    } | curl --config - --silent --show-error --connect-timeout 10 --max-time 120 --max-filesize 50000000 \
        --retry "$RETRIES" --retry-connrefused --retry-max-time 120 \
        --output "$TMP/answer" --write-out '%{http_code}' 2>"$TMP/curl") || {
        [ -n "$IDEMPOTENCY" ] && [ "$1" = POST ] && note "Submit it again with --idempotency-key $IDEMPOTENCY: it is charged once."
        [ -z "$JOB" ] || note "The job goes on: pixeldojo.sh wait $JOB"
        die 5 "can't reach $BASE: $(curl_said)" 'Check PIXELDOJO_BASE_URL, and that the service runs.'
    }
    jq -e 'type == "object"' "$TMP/answer" >/dev/null 2>&1 || strange
    case $status in 2??) ;; *) refused ;; esac
}

curl_said() { tail -n 1 "$TMP/curl" | sed 's/^curl: ([0-9]*) //'; }

strange() { die 5 "the answer of $BASE is not one that PixelDojo gives (status $status)" 'Check PIXELDOJO_BASE_URL.'; }

# What the service refused, and what to change.
refused() {
    [ "$(jq -r '.error.message? | type' "$TMP/answer")" = string ] || strange
    fault=$(jq -r '.error.code | tostring' "$TMP/answer")
    said=$(jq -r '"\(.error.message) (\(.error.code))" | gsub("[[:cntrl:]]"; " ")' "$TMP/answer")
    details=$(jq -r '.error.details // [] | .[1:][] | "\(.path): \(.message)"' "$TMP/answer")
    [ -z "$details" ] || said="$said
$details"
    case $fault in
        unauthorized) die 3 "$said" "PIXELDOJO_API_KEY must be a key of $BASE with the scope that this needs." ;;
        not_found) die 3 "$said" 'pixeldojo.sh models shows the models, pixeldojo.sh list your jobs.' ;;
        expired) die 3 "$said" 'Run it again: with the same seed the same input gives the same result.' ;;
        insufficient_credits) die 4 "$said" 'pixeldojo.sh estimate prices a job, pixeldojo.sh balance shows what is left.' ;;
        validation_error | invalid_json) die 2 "$said" 'pixeldojo.sh schema MODEL shows what a model takes.' ;;
        rate_limit_exceeded) die 1 "$said" 'Wait that long; ask less often.' ;;
        *) die 1 "$said" "Try again; whoever runs the service can look for $(jq -r '.error.requestId // "it"' "$TMP/answer")." ;;
    esac
}

# picture FILE: as a data URI in $TMP/uri.
picture() {
    [ -r "$1" ] || die 2 "can't read '$1'"
    case $(od -An -tx1 -N12 <"$1" | tr -d ' \n') in
        89504e47*) kind=png ;;
        ffd8ff*) kind=jpeg ;;
        52494646????????57454250) kind=webp ;;
        *) die 2 "'$1' is no picture that models take" 'Convert it to PNG, JPEG or WebP.' ;;
    esac
    { printf 'data:image/%s;base64,' "$kind" && base64 <"$1" | tr -d '\n'; } >"$TMP/uri"
}

# body ARGUMENT…: the request in $TMP/body. Pictures pass through files: arguments have a limit.
body() {
    printf '{}' >"$TMP/body"
    for each in "$@"; do
        name=${each%%=*} value=${each#*=}
        case $name in
            "$each" | *[!A-Za-z0-9_]* | '') name=prompt value=$each ;;
        esac
        printf %s "$value" >"$TMP/value"
        case $value in
            @*) picture "${value#@}" && mv "$TMP/uri" "$TMP/value" && kind=text ;;
            *) kind=json ;;
        esac
        [ "$name" != prompt ] || kind=text
        jq --arg name "$name" --arg kind "$kind" --rawfile value "$TMP/value" \
            'if has($name) then error("twice") else . end
             | .[$name] = if $kind == "json" then ($value | (try fromjson catch $value)) else $value end' \
            "$TMP/body" >"$TMP/next" 2>/dev/null || die 2 "$name is given twice" 'Quote a prompt of several words.'
        mv "$TMP/next" "$TMP/body"
    done
}

submit() {
    [ -n "$IDEMPOTENCY" ] || IDEMPOTENCY="sh-$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')"
    call POST "/models/$MODEL/run" "$TMP/body"
    JOB=$(jq -r '.jobId // "" | tostring' "$TMP/answer")
    case $JOB in '' | *[!A-Za-z0-9_-]*) JOB='' && strange ;; esac
    IDEMPOTENCY=''
}

state() { jq -r '.status // "" | tostring' "$TMP/answer"; }

# Wait for $JOB, whose state is in $TMP/answer, and save what it made.
collect() {
    began=$(date +%s) pause=1
    while :; do
        case $(state) in
            completed | failed) break ;;
            pending | processing) ;;
            *) strange ;;
        esac
        [ $(($(date +%s) - began + pause)) -le "$TIMEOUT" ] ||
            die 6 "not done within $TIMEOUT s" "The job goes on: pixeldojo.sh wait $JOB"
        sleep "$pause"
        [ "$pause" -ge 5 ] || pause=$((pause + 1))
        call GET "/jobs/$JOB"
    done
    if [ "$(state)" = failed ]; then
        said=$(jq -r '"\(.error.message) (\(.error.code)); \(.creditsRefunded // 0) credits were refunded"' "$TMP/answer")
        code=1
        [ "$(jq -r .error.code "$TMP/answer")" != validation_error ] || code=2
        die "$code" "the job $JOB failed: $said"
    fi
    cp "$TMP/answer" "$TMP/job"
    save
}

save() {
    jq -r '[.assets[]?.url] | if length == 0 then error("none") else .[] end' "$TMP/job" >"$TMP/urls" 2>/dev/null ||
        die 5 "the job $JOB has no results" "pixeldojo.sh status $JOB"
    count=$(wc -l <"$TMP/urls") number=0
    while IFS= read -r url; do
        number=$((number + 1))
        case $url in
            *[\"\\\ ]*) die 5 "the job $JOB has a result with no address" ;;
            http://* | https://*) ;;
            *) die 5 "the job $JOB has a result with no address" ;;
        esac
        path=$(target "$url")
        printf 'url = "%s"\n' "$url" | curl --config - --silent --show-error --fail --location --proto '=http,https' \
            --connect-timeout 10 --max-time 600 --retry "$RETRIES" --retry-connrefused --output "$path.part" \
            2>"$TMP/curl" || {
            rm -f "$path.part"
            die 1 "can't download a result of $JOB: $(curl_said)" "pixeldojo.sh wait $JOB tries again."
        }
        mv "$path.part" "$path"
        printf '%s\n' "$path"
    done <"$TMP/urls"
}

# target URL: where result number $number of $count goes.
target() {
    end=${1%%\?*}
    end=${end##*.}
    case $end in *[!a-z0-9]* | ?????* | '') end=bin ;; esac
    mark=''
    [ "$count" -eq 1 ] || mark=-$number
    if [ -z "$OUT" ]; then
        printf '%s' "$JOB$mark.$end"
    elif [ -d "$OUT" ]; then
        printf '%s' "${OUT%/}/$JOB$mark.$end"
    else
        case ${OUT##*/} in
            ?*.*) printf '%s' "${OUT%.*}$mark.${OUT##*.}" ;;
            *) printf '%s' "$OUT$mark" ;;
        esac
    fi
}

need() { [ $# -gt 1 ] || die 2 "$1 needs a value" 'pixeldojo.sh help shows how.'; }

number() {
    case $2 in '' | *[!0-9]* | 0?* | ???????*) die 2 "$1: '$2' is no whole number" ;; esac
}

# The options go into variables, the other arguments into $ARGUMENTS, quoted for the shell.
parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            -o | --out) need "$@" && OUT=$2 && shift ;;
            --timeout) need "$@" && number "$1" "$2" && TIMEOUT=$2 && shift ;;
            --retries) need "$@" && number "$1" "$2" && RETRIES=$2 && shift ;;
            --idempotency-key) need "$@" && word "$2" "$1" 'Use letters, digits, dots and dashes.' && IDEMPOTENCY=$2 && shift ;;
            --limit | --status | --model | --cursor)
                need "$@" && word "$2" "$1" 'pixeldojo.sh help shows how.' && QUERY="$QUERY&${1#--}=$2" && shift ;;
            --) shift && break ;;
            -?*) die 2 "there is no option $1" 'pixeldojo.sh help shows them.' ;;
            *) quoted "$1" ;;
        esac
        shift
    done
    for each in "$@"; do quoted "$each"; done
}

quoted() { ARGUMENTS="$ARGUMENTS '$(printf %s "$1" | sed "s/'/'\\\\''/g")'"; }

first() { # first WHAT [ARGUMENT]…
    [ $# -gt 1 ] || die 2 "say which $1" 'pixeldojo.sh help shows how.'
}

only() { [ "$1" -le "$2" ] || die 2 'too many arguments' 'pixeldojo.sh help shows how.'; }

for program in curl jq; do
    command -v "$program" >/dev/null 2>&1 || die 2 "$program can't be found" "Install it: it is in every system's packages."
done
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
trap 'note "interrupted${JOB:+; the job goes on: pixeldojo.sh wait $JOB}"; exit 130' INT TERM

verb=${1:-help}
[ $# -eq 0 ] || shift
case " $* " in *" --help "* | *" -h "*) verb=help ;; esac
[ "$verb" = help ] || parse "$@"
eval "set -- $ARGUMENTS"
case $verb in
    help) usage && exit 0 ;;
    models | schema | upload) address ;;
    estimate | generate | run | wait | status | list | cancel | balance) address && find_key ;;
    *) die 2 "there is no '$verb'" 'pixeldojo.sh help shows what there is.' ;;
esac
case $verb in
    schema | estimate | generate | run)
        first 'model (pixeldojo.sh models shows them)' "$@"
        MODEL=$1
        shift
        word "$MODEL" MODEL 'pixeldojo.sh models shows them.' ;;
    wait | status | cancel)
        first 'job (pixeldojo.sh list shows yours)' "$@"
        only $# 1
        JOB=$1
        word "$JOB" JOB 'pixeldojo.sh list shows yours.' ;;
esac
if [ -n "$OUT" ] && [ ! -d "$OUT" ] && [ ! -d "$(dirname "$OUT")" ]; then
    die 2 "-o: there is no folder $(dirname "$OUT")" 'Make it first.' # better now than when the credits are spent
fi
case $verb in
    models)
        only $# 1
        if [ $# -eq 1 ]; then
            word "$1" MODEL 'pixeldojo.sh models shows them.'
            call GET "/models/$1"
            jq . "$TMP/answer"
        else
            call GET /models
            jq -r '.models[] | [.apiId, .modality, "\(.creditCost.default) credits (\(.creditCost.type))", .description]
                   | @tsv' "$TMP/answer"
        fi ;;
    schema) only $# 0 && call GET "/models/$MODEL/schema" && jq .schema "$TMP/answer" ;;
    estimate) body "$@" && call POST "/models/$MODEL/estimate" "$TMP/body" && jq . "$TMP/answer" ;;
    run) body "$@" && submit && jq . "$TMP/answer" ;;
    generate)
        body "$@"
        [ "$TIMEOUT" -eq 0 ] || PREFER="wait=$((TIMEOUT < 30 ? TIMEOUT : 30))"
        submit
        PREFER=''
        note "$JOB: $(jq -r '"\(.creditCost) credits, \(.creditsRemaining) are left"' "$TMP/answer")"
        collect ;;
    wait) call GET "/jobs/$JOB" && collect ;;
    status) call GET "/jobs/$JOB" && jq . "$TMP/answer" ;;
    list) only $# 0 && call GET "/jobs?${QUERY#&}" && jq . "$TMP/answer" ;;
    cancel) call POST "/jobs/$JOB/cancel" && jq . "$TMP/answer" ;;
    upload)
        first 'file' "$@"
        only $# 1
        picture "$1" && cat "$TMP/uri" && printf '\n' ;;
    balance) only $# 0 && call GET /account && jq '{credits, limits}' "$TMP/answer" ;;
esac
