//! Any message of any content is one line, and comes back as it was, however the pipe cuts it.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use protocol::class::Class;
use protocol::command::{
    Adapter, Answer, Command, CommandAdapter, Keeper, MemoryLimit, Message, Pong, PromptBy,
    RunKind, ScriptedAdapter, Start, SteerMode, Stop, Text, VerifyAdapter, VerifyCommand,
};
use protocol::exit_file::{EXIT_FILE_VERSION, ExitFile};
use protocol::forge::{
    CommentAdapter, CommentWork, Fetch, FetchAdapter, ForgeKind, Place, Reference,
};
use protocol::framing::{Frame, FrameReader, LINE_MAX};
use protocol::git::{
    CommitWork, Committed, Freshness, GitAdapter, GitOutcome, GitWork, Oid, Provision,
};
use protocol::ids::{AttemptNo, BatchId, Generation, MessageId, QuestionId, TaskId};
use protocol::program::{Credentials, Home, McpServer, Permissions, ProgramAdapter, ProgramKind};
use protocol::report::{
    Ask, Capabilities, Context, EXCERPT_MAX, Event, Family, ProcessSpawned, Progress, RateLimited,
    Receipt, Report, ResultStatus, RunResult, Said, Started, SteerReach, Tool, Usage, Verdict,
    excerpt,
};
use protocol::rpc::{self, Incoming};

fn words() -> impl Strategy<Value = String> + Clone {
    // Everything that JSON must escape, and characters of every width.
    "[a-z \"\\\\\n\r\t\u{0}\u{7f}\u{e4}\u{20ac}\u{1f600}/]{0,24}"
}

fn task() -> impl Strategy<Value = TaskId> {
    "[A-Za-z0-9][A-Za-z0-9_-]{0,20}".prop_map(|id| id.parse().unwrap())
}

fn batch() -> impl Strategy<Value = BatchId> {
    "[a-z0-9][a-z0-9-]{0,40}".prop_map(|id| id.parse().unwrap())
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![words().prop_map(Text::Inline), words().prop_map(Text::File)]
}

fn mode() -> impl Strategy<Value = SteerMode> {
    prop_oneof![
        Just(SteerMode::Boundary),
        Just(SteerMode::Interrupt),
        Just(SteerMode::After),
        Just(SteerMode::Restart),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let from = option::of(Just("other-task".parse().unwrap()));
    (any::<u64>(), mode(), words(), from).prop_map(|(id, mode, text, from)| Message {
        id: MessageId(id),
        mode,
        text,
        from,
    })
}

fn adapter() -> impl Strategy<Value = Adapter> {
    let prompt_by = prop_oneof![
        Just(PromptBy::None),
        Just(PromptBy::Argument),
        Just(PromptBy::Stdin),
        Just(PromptBy::File),
    ];
    let command = (vec(words(), 0..4), prompt_by, option::of(words()));
    let command = command.prop_map(|(argv, prompt_by, result_file)| {
        Adapter::Command(CommandAdapter {
            argv,
            prompt_by,
            result_file,
        })
    });
    let scripted = text().prop_map(|script| Adapter::Scripted(ScriptedAdapter { script }));
    let one = (
        vec(words(), 0..3),
        any::<u64>(),
        btree_map(words(), words(), 0..3),
    );
    let one = one.prop_map(|(argv, timeout_ms, env)| VerifyCommand {
        argv,
        timeout_ms,
        env,
    });
    let verify = vec(one, 0..3);
    let hook = verify.clone();
    let hook = hook.prop_map(|commands| Adapter::Hook(VerifyAdapter { commands }));
    let verify = verify.prop_map(|commands| Adapter::Verify(VerifyAdapter { commands }));
    prop_oneof![command, scripted, verify, hook, git(), fetch(), program()]
}

fn fetch() -> impl Strategy<Value = Adapter> {
    let place =
        (words(), words(), words()).prop_map(|(host, owner, name)| Place { host, owner, name });
    let kind = prop_oneof![Just(ForgeKind::Issue), Just(ForgeKind::Pr)];
    let reference = (option::of(place), any::<u64>());
    let reference = reference.prop_map(|(place, number)| Reference { place, number });
    let fetch = (kind, reference, option::of(words()));
    let fetch = fetch
        .prop_map(|(kind, reference, repo)| Fetch {
            kind,
            reference,
            repo,
        })
        .boxed();
    let comment = (fetch.clone(), words(), words(), any::<u64>());
    let comment = comment.prop_map(|(about, text, mark, timeout_ms)| {
        let comment = CommentWork { about, text, mark };
        Adapter::Comment(CommentAdapter {
            comment,
            timeout_ms,
        })
    });
    let fetch = (fetch, any::<u64>())
        .prop_map(|(fetch, timeout_ms)| Adapter::Fetch(FetchAdapter { fetch, timeout_ms }));
    prop_oneof![fetch, comment]
}

fn oid() -> impl Strategy<Value = Oid> + Clone {
    "[0-9a-f]{40}|[0-9a-f]{64}".prop_map(|name| Oid::try_from(name).unwrap())
}

fn git() -> impl Strategy<Value = Adapter> {
    let freshness = prop_oneof![
        Just(Freshness::Ignore),
        Just(Freshness::Warn),
        Just(Freshness::Rebase),
    ];
    let names = (words(), words(), words(), words(), option::of(words()));
    let commits = (oid(), vec(oid(), 0..3), option::of(oid()));
    let provision = (names, commits, freshness).prop_map(|(names, commits, freshness)| {
        GitWork::Provision(Provision {
            repo: names.0,
            worktree: names.1,
            branch: names.2,
            into: names.3,
            watch: names.4,
            pinned: commits.0,
            needs: commits.1,
            made: commits.2,
            kept: Vec::new(),
            freshness,
        })
    });
    let names = (words(), words(), words(), words(), words());
    let lists = (option::of(vec(words(), 0..3)), vec(words(), 0..3));
    let commit = (names, oid(), lists).prop_map(|(names, base, lists)| {
        GitWork::Commit(CommitWork {
            repo: names.0,
            worktree: names.1,
            branch: names.2,
            base,
            message: names.3,
            touches: lists.0,
            outputs: lists.1,
            outputs_dir: names.4,
        })
    });
    (prop_oneof![provision, commit], any::<u64>())
        .prop_map(|(work, timeout_ms)| Adapter::Git(GitAdapter { work, timeout_ms }))
}

fn outcome() -> impl Strategy<Value = Box<GitOutcome>> {
    let lists = (vec(words(), 0..3), vec(words(), 0..3), vec(words(), 0..3));
    (oid(), any::<u64>(), lists).prop_map(|(commit, files, lists)| {
        Box::new(GitOutcome::Committed(Committed {
            commit,
            files,
            markers: lists.0,
            outside: lists.1,
            missing: lists.2,
            warnings: Vec::new(),
        }))
    })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Approve),
        Just(Verdict::Revise),
        Just(Verdict::Reject),
    ]
}

fn program() -> impl Strategy<Value = Adapter> {
    let permissions = prop_oneof![
        Just(Permissions::Full),
        Just(Permissions::Edits),
        Just(Permissions::Ask),
    ];
    let home = prop_oneof![
        Just(Home::Task),
        Just(Home::Shared),
        words().prop_map(Home::Path),
    ];
    let credentials = prop_oneof![
        Just(Credentials::Copy),
        Just(Credentials::Link),
        Just(Credentials::None),
    ];
    let kind = proptest::sample::select(ProgramKind::ALL.to_vec());
    let env = proptest::collection::btree_map(words(), words(), 0..2);
    let server = (words(), vec(words(), 0..2), env);
    let server = server.prop_map(|(command, args, env)| McpServer { command, args, env });
    let mcp = proptest::collection::btree_map(words(), server, 0..2);
    let names = (option::of(words()), option::of(words()));
    let texts = (kind, words(), vec(words(), 0..3), names, mcp);
    let rules = (permissions, home, credentials, option::of(words()));
    (texts, rules).prop_map(|((kind, program, args, (model, mode), mcp), rules)| {
        let (permissions, home, credentials, system_prompt) = rules;
        Adapter::Program(ProgramAdapter {
            kind,
            program,
            args,
            model,
            mode,
            permissions,
            home,
            credentials,
            system_prompt,
            mcp,
        })
    })
}

fn start() -> impl Strategy<Value = Start> {
    let names = (any::<u64>(), batch(), task(), any::<u32>());
    let kind = prop_oneof![
        Just(RunKind::Agent),
        Just(RunKind::Verify),
        Just(RunKind::Review),
        Just(RunKind::Merge),
        Just(RunKind::Hook),
        Just(RunKind::Git),
    ];
    let folders = (words(), words(), words());
    let agent = (
        option::of(text()),
        btree_map(words(), words(), 0..4),
        option::of(words()),
        option::of(words()),
    );
    let mail = (
        vec(message(), 0..3),
        vec(any::<u64>().prop_map(MessageId), 0..3),
    );
    let keeper = prop_oneof![Just(Keeper::Cgroup), Just(Keeper::Host)];
    let memory = (any::<u64>(), keeper).prop_map(|(max, keeper)| MemoryLimit { max, keeper });
    let limits = (
        any::<u64>(),
        any::<u64>(),
        option::of(words()),
        option::of(memory),
    );
    (names, kind, folders, agent, mail, limits, adapter()).prop_map(
        |(names, kind, folders, agent, mail, limits, adapter)| Start {
            generation: Generation(names.0),
            batch: names.1,
            task: names.2,
            attempt: AttemptNo(names.3),
            kind,
            cwd: folders.0,
            run_dir: folders.1,
            task_dir: folders.2,
            prompt: agent.0,
            hand_off: agent.3,
            env: agent.1,
            session: agent.2,
            messages: mail.0,
            injected: mail.1,
            log_max: limits.0,
            lease_ms: limits.1,
            cgroup: limits.2,
            memory: limits.3,
            adapter,
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let answer = (any::<u64>(), option::of(words())).prop_map(|(id, text)| Answer {
        question: QuestionId(id),
        text,
    });
    prop_oneof![
        start().prop_map(|start| Command::Start(Box::new(start))),
        message().prop_map(Command::Deliver),
        answer.prop_map(Command::Answer),
        Just(Command::Interrupt {}),
        any::<u64>().prop_map(|grace_ms| Command::Stop(Stop { grace_ms })),
    ]
}

fn usage() -> impl Strategy<Value = Usage> {
    any::<(u64, u64, u64)>().prop_map(|(turns, tokens, cost_micros)| Usage {
        turns,
        tokens,
        cost_micros,
    })
}

fn family() -> impl Strategy<Value = Family> {
    let sizes = any::<(u64, u64, u64, u64)>();
    (sizes, any::<(u32, u32)>()).prop_map(|(sizes, counts)| Family {
        memory_bytes: sizes.0,
        memory_peak_bytes: sizes.1,
        cpu_ms: sizes.2,
        processes: counts.0,
        begun: sizes.3,
        unread: counts.1,
    })
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL)
}

fn result() -> impl Strategy<Value = RunResult> {
    let status = prop_oneof![Just(ResultStatus::Ok), Just(ResultStatus::Failed)];
    let end = (
        option::of(any::<i32>()),
        option::of(any::<i32>()),
        option::of(any::<i64>()),
    );
    let files = proptest::collection::vec(words(), 0..3);
    let said = (words(), option::of(words()), words(), files);
    let used = (usage(), option::of(family()));
    let done = (option::of(verdict()), option::of(outcome()));
    (status, option::of(class()), end, said, used, done).prop_map(
        |(status, class, end, said, (usage, family), (verdict, git))| RunResult {
            status,
            class,
            summary: said.0,
            exit_code: end.0,
            signal: end.1,
            reset_at_ms: end.2,
            session: said.1,
            usage,
            family,
            evidence: said.2,
            artifacts: said.3,
            verdict,
            git,
        },
    )
}

fn started() -> impl Strategy<Value = Started> {
    let steer = prop_oneof![
        Just(SteerReach::None),
        Just(SteerReach::Boundary),
        Just(SteerReach::Interrupt),
    ];
    let receipt = prop_oneof![Just(Receipt::Injected), Just(Receipt::Seen)];
    (steer, receipt, any::<[bool; 5]>(), option::of(words())).prop_map(
        |(steer, receipt, [interrupt, resume, questions, usage, cost], session)| Started {
            capabilities: Capabilities {
                steer,
                receipt,
                interrupt,
                resume,
                questions,
                usage,
                cost,
            },
            session,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let said = words().prop_map(|text| Said { text });
    let tool = (words(), words(), option::of(any::<bool>()));
    let tool = tool.prop_map(|(name, detail, ok)| Tool { name, detail, ok });
    let context = any::<(u64, u64)>().prop_map(|(used, window)| Context { used, window });
    let limited =
        (option::of(any::<i64>()), words()).prop_map(|(reset_at_ms, detail)| RateLimited {
            reset_at_ms,
            detail,
        });
    let progress = (words(), option::of(any::<u8>()));
    let progress = progress.prop_map(|(text, percent)| Progress { text, percent });
    let process = (any::<u32>(), any::<u64>(), words());
    let process = process.prop_map(|(pid, start_ticks, command)| ProcessSpawned {
        pid,
        start_ticks,
        command,
    });
    let id = || any::<u64>().prop_map(MessageId);
    let quiet = prop_oneof![Just(Event::PromptSent {}), Just(Event::TurnEnded {})];
    prop_oneof![
        quiet,
        started().prop_map(Event::Started),
        said.clone().prop_map(Event::AssistantMessage),
        said.clone().prop_map(Event::Retry),
        said.clone().prop_map(Event::Compaction),
        said.clone().prop_map(Event::Reply),
        said.clone().prop_map(Event::Escalation),
        said.prop_map(Event::Notice),
        tool.clone().prop_map(Event::ToolCall),
        tool.prop_map(Event::ToolResult),
        usage().prop_map(Event::Usage),
        context.prop_map(Event::Context),
        limited.prop_map(Event::RateLimited),
        progress.prop_map(Event::Progress),
        process.prop_map(Event::ProcessSpawned),
        id().prop_map(|id| Event::MessageInjected { id }),
        id().prop_map(|id| Event::MessageSeen { id }),
        result().prop_map(|result| Event::Result(Box::new(result))),
    ]
}

/// Sends lines through a pipe that cuts where it likes, and gives what arrives.
fn through_a_pipe(lines: &[Vec<u8>], cuts: &[usize]) -> Vec<Vec<u8>> {
    let stream = lines.concat();
    let mut reader = FrameReader::default();
    let mut arrived = Vec::new();
    let mut rest = stream.as_slice();
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let cut = cuts
            .next()
            .map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
        let (piece, after) = rest.split_at(cut);
        reader.push(piece);
        rest = after;
        while let Some(frame) = reader.next_frame() {
            match frame {
                Frame::Line(line) => arrived.push(line),
                Frame::Blank | Frame::TooLong { .. } => panic!("{frame:?} was not sent"),
            }
        }
    }
    assert_eq!(
        reader.unfinished(),
        0,
        "every message ends with its newline"
    );
    arrived
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn commands_come_back(commands in vec(command(), 1..4), cuts in vec(1_usize..200, 1..8)) {
        let lines: Vec<_> = commands.iter().map(|command| command.line().unwrap()).collect();
        let arrived = through_a_pipe(&lines, &cuts);
        prop_assert_eq!(arrived.len(), commands.len());
        for (line, command) in arrived.iter().zip(&commands) {
            let Ok(Incoming::Notification { method, .. }) = rpc::read(line) else {
                panic!("{command:?} is no notification");
            };
            prop_assert_eq!(method, command.method());
            prop_assert_eq!(&serde_json::from_slice::<Command>(line).unwrap(), command);
        }
    }

    #[test]
    fn reports_come_back(
        events in vec((any::<u64>(), event()), 1..6),
        cuts in vec(1_usize..200, 1..8),
    ) {
        let reports: Vec<Report> = events
            .into_iter()
            .map(|(generation, event)| Report { generation: Generation(generation), event })
            .collect();
        let lines: Vec<_> = reports.iter().map(|report| report.line().unwrap()).collect();
        let arrived = through_a_pipe(&lines, &cuts);
        prop_assert_eq!(arrived.len(), reports.len());
        for (line, report) in arrived.iter().zip(&reports) {
            let Ok(Incoming::Notification { method, params: Some(params) }) = rpc::read(line)
            else {
                panic!("{report:?} is no notification");
            };
            prop_assert_eq!(method.as_str(), Report::METHOD);
            prop_assert_eq!(&serde_json::from_str::<Report>(params.get()).unwrap(), report);
        }
    }

    #[test]
    fn a_result_is_the_same_on_the_pipe_and_on_the_disk(result in result(), run in any::<u64>()) {
        let generation = Generation(run);
        let file = ExitFile {
            v: EXIT_FILE_VERSION,
            generation,
            result: result.clone(),
            injected: vec![MessageId(run)],
        };
        let text = serde_json::to_vec(&file).unwrap();
        prop_assert!(!text.contains(&b'\n'), "one line");
        prop_assert_eq!(serde_json::from_slice::<ExitFile>(&text).unwrap(), file);
        let event = Event::Result(Box::new(result.clone()));
        let line = Report { generation, event }.line().unwrap();
        let on_the_pipe: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let mut on_the_pipe = on_the_pipe["params"]["event"].clone();
        on_the_pipe.as_object_mut().unwrap().remove("type");
        prop_assert_eq!(on_the_pipe, serde_json::to_value(&result).unwrap());
    }

    #[test]
    fn a_cut_exit_file_is_never_another_result(result in result(), cut in any::<prop::sample::Index>()) {
        let file = ExitFile {
            v: EXIT_FILE_VERSION,
            generation: Generation(1),
            result,
            injected: Vec::new(),
        };
        let text = serde_json::to_vec(&file).unwrap();
        let cut = cut.index(text.len());
        prop_assert!(serde_json::from_slice::<ExitFile>(&text[..cut]).is_err());
    }

    #[test]
    fn questions_and_signs_of_life_come_back(
        text in words(),
        options in vec(words(), 0..4),
        id in any::<u64>(),
        output_bytes in any::<u64>(),
        family in family(),
    ) {
        let ask = Ask { generation: Generation(id), text, options };
        let line = rpc::request(id, "ask", &ask).unwrap();
        let Ok(Incoming::Request { params: Some(params), .. }) = rpc::read(&line) else {
            panic!("a question is a request");
        };
        prop_assert_eq!(serde_json::from_str::<Ask>(params.get()).unwrap(), ask);

        let pong = Pong { output_bytes, family };
        let line = rpc::answer(id, pong).unwrap();
        let Ok(Incoming::Answer { outcome: Ok(result), .. }) = rpc::read(&line) else {
            panic!("a pong is an answer");
        };
        prop_assert_eq!(serde_json::from_str::<Pong>(result.get()).unwrap(), pong);
    }

    #[test]
    fn a_report_of_excerpts_fits_a_line_whatever_is_said(
        letter in prop_oneof![Just('x'), Just('"'), Just('\u{0}'), Just('\u{1f600}'), any::<char>()],
        length in 0_usize..10_000,
    ) {
        let said: String = std::iter::repeat_n(letter, length).collect();
        let text = excerpt(&said, EXCERPT_MAX);
        let result = RunResult {
            status: ResultStatus::Failed,
            class: Some(Class::AgentFailed),
            summary: text.clone(),
            exit_code: Some(1),
            signal: None,
            reset_at_ms: None,
            session: None,
            usage: Usage::default(),
            family: None,
            evidence: text,
            artifacts: Vec::new(),
            verdict: None,
            git: None,
        };
        let event = Event::Result(Box::new(result));
        let line = Report { generation: Generation(u64::MAX), event }.line().unwrap();
        // Six bytes for the worst escape, two texts, and room for the rest: far below the limit.
        prop_assert!(line.len() < 12 * EXCERPT_MAX + 1024);
        prop_assert!(line.len() < LINE_MAX / 16);
    }
}
