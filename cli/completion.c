/*
 * arcvmm completion bash: what a shell needs to complete our words, made from
 * the tables the program itself uses. Names of running VMs are asked for when
 * the key is pressed.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static int run_completion(int argc, char **argv)
{
	const struct arcvmm_key *k;

	if (argc != 2 || strcmp(argv[1], "bash"))
		return complain("completion is made for: bash");
	puts("# bash completion for arcvmm; source <(arcvmm completion bash)\n"
	     "_arcvmm() {\n"
	     "\tlocal cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} w\n"
	     "\tlocal prev=${COMP_WORDS[COMP_CWORD-1]}");
	printf("\tlocal verbs='");
	for (unsigned i = 0; verbs[i]; i++)
		printf("%s ", verbs[i]->name);
	printf("'\n\tlocal run='--tty --interactive --detach --name --timeout "
	       "--boot-timeline --verbose");
	for (unsigned i = 0; (k = arcvmm_config_key(i)); i++)
		printf(" --%s", k->name);
	printf("'\n\tlocal exec='--interactive --tty --detach --env --workdir "
	       "--user --timeout --limit --time'\n\tlocal limits='");
	for (unsigned i = 0; arcvmm_limit_name(i, NULL); i++)
		printf("%s= ", arcvmm_limit_name(i, NULL));
	puts("'\n"
	     "\tif [ \"$COMP_CWORD\" -eq 1 ]; then w=$verbs\n"
	     "\telif [ \"$prev\" = --limit ]; then w=$limits; compopt -o "
	     "nospace\n"
	     "\telse case $verb,$cur in\n"
	     "\texec,-*) w=$exec ;;\n"
	     "\trun,-*) w=$run ;;\n"
	     "\tstop,-*) w=--timeout ;;\n"
	     "\tps,-*|stats,-*) w=--json ;;\n"
	     "\texec,*|logs,*|stop,*|kill,*|pause,*|resume,*|stats,*)\n"
	     "\t\tw=$(arcvmm ps 2>/dev/null | awk 'NR > 1 { print $1 }') ;;\n"
	     "\thelp,*) w=$verbs ;;\n"
	     "\tesac; fi\n"
	     "\tCOMPREPLY=($(compgen -W \"$w\" -- \"$cur\"))\n"
	     "\t[ -n \"$w\" ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n"
	     "}\n"
	     "complete -o filenames -F _arcvmm arcvmm");
	return 0;
}

const struct verb verb_completion = {
	.name = "completion",
	.args = "bash",
	.summary = "print a shell's completion rules",
	.run = run_completion,
};
