"""`hutch completion`: scripts by which shells ask `hutch __complete`."""

from __future__ import annotations

from hutch.cli.command import Command
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# bash splits words at : and =, which names and flags hold, so they are put together again for the question, and what
# stands before the last of them is taken from the answer.
_BASH = r"""# bash completion for hutch: source this file, or keep it in /etc/bash_completion.d

_hutch() {
    local rest=$COMP_LINE trimmed word words=() i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        trimmed=${rest#"${rest%%[![:space:]]*}"}
        if ((i)) && [[ $rest == "$trimmed" ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
        rest=${trimmed#"$word"}
    done
    local last=$((${#words[@]} - 1))
    local current=${words[last]} before="" line directive=0
    if [[ $COMP_WORDBREAKS == *:* && $COMP_WORDBREAKS == *=* ]]; then
        before=${current%"${current##*[:=]}"}
    elif [[ $COMP_WORDBREAKS == *=* ]]; then
        before=${current%"${current##*=}"}
    fi
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :[0-9]* ]]; then
            directive=${line#:}
        else
            line=${line%%$'\t'*}
            COMPREPLY+=("${line#"$before"}")
        fi
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    if ((directive & 16)); then
        compopt -o dirnames +o default 2>/dev/null
    elif ((directive & 4)); then
        compopt +o default 2>/dev/null
    fi
    if ((directive & 2)); then
        compopt -o nospace 2>/dev/null
    fi
}

complete -o default -F _hutch hutch
"""

_ZSH = r"""#compdef hutch
# zsh completion for hutch: source this file, or keep it as _hutch in a directory of $fpath

_hutch() {
    local line directive=0
    local -a described words_before options
    words_before=("${(@Q)words[2,CURRENT-1]}")
    while IFS= read -r line; do
        if [[ $line == :[0-9]* ]]; then
            directive=${line#:}
        else
            local word=${line%%$'\t'*} text=""
            [[ $line == *$'\t'* ]] && text=${line#*$'\t'}
            described+=("${word//:/\\:}${text:+:$text}")
        fi
    done < <("${(Q)words[1]}" __complete "${words_before[@]}" "${(Q)PREFIX}" 2>/dev/null)
    (( directive & 2 )) && options+=(-S '')
    if (( ${#described} )); then
        _describe 'hutch' described "${options[@]}"
    fi
    if (( directive & 16 )); then
        _files -/
    elif ! (( directive & 4 )); then
        _files
    fi
}

if [[ ${funcstack[1]} == _hutch ]]; then
    _hutch "$@"
else
    compdef _hutch hutch
fi
"""

_FISH = r"""# fish completion for hutch: source this file, or keep it in ~/.config/fish/completions

function __hutch_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l answer ($program __complete $words "$current" 2>/dev/null)
    test (count $answer) -gt 0; or return
    set -l directive (string replace ':' '' -- $answer[-1])
    set -e answer[-1]
    for line in $answer
        echo $line
    end
    if test (math "bitand($directive, 16)") -ne 0
        __fish_complete_directories "$current" ''
    else if test (math "bitand($directive, 4)") -eq 0
        __fish_complete_path "$current"
    end
end

complete -c hutch -f -a '(__hutch_complete)'
"""

SCRIPTS = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}


def _run(_given: dict[str, Any], arguments: list[str], _general: dict[str, Any]) -> int:
    shell = arguments[0]
    if shell not in SCRIPTS:
        raise InvalidArgument(f"completion: unknown shell: {shell[:64]}", hint=f"one of {', '.join(SCRIPTS)}")
    print(SCRIPTS[shell], end="")
    return 0


COMMAND = Command(
    "completion",
    arguments="SHELL",
    summary="Print the script by which bash, fish or zsh completes commands, flags and names",
    flags=(),
    run=_run,
    example="source <(hutch completion bash)",
    least=1,
    most=1,
)
