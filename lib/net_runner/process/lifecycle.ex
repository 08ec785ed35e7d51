defmodule NetRunner.Process.Lifecycle do
  @moduledoc false
  # Where a command is between its start and its end, as pure data.
  #
  # Its life, phase by phase:
  #
  #     running ──► ending ──► given_up        (told to end; SIGKILL did not help in time)
  #        │           │           │
  #        ▼           ▼           ▼
  #        leaving_cgroup, where it has one that goes with it
  #                    │
  #                    ▼
  #               announcing                    (telemetry handlers are told of its end)
  #                    │
  #                    ▼
  #                  over                      (its output may still be readable)
  #
  # `event/2` takes what happened and gives the next life and a list of effects, which the server carries out in
  # their order. Nothing here reads a clock, sends a message or calls the system.
  #
  # The cause is the first reason for which NetRunner ended the command. A command that exits by itself has none, and
  # gets none later: no timeout is reported for a command that has exited.

  alias NetRunner.Process.Exit

  # What the helpers above a shepherd that was killed take to end its command, in ms; more than they need.
  @death_of_the_lost 1_000

  @typedoc """
  Why the command was told to end. After `:asked`, what it prints is still read; `{:asked, why}` is the same for a
  capture, which says why. After `:stopped`, it is discarded. The others are verdicts: callers get them instead of the
  output. `:closed`: who could get it has died.
  """
  @type cause ::
          :asked
          | {:asked, why :: term()}
          | :stopped
          | :closed
          | :timeout
          | {:max_output_exceeded, binary()}
          | {:input_failed, term()}
          | {:read_failed, atom()}

  @typedoc "What the server does when the command is over."
  @type next :: :stay | {:stop, reason :: term()}

  @typedoc "The shepherd died, at `System.monotonic_time/0`, so nobody knows how the command exited."
  @type lost :: {:lost, at :: integer()}

  @type phase ::
          :running
          | {:ending, cause(), next()}
          | {:given_up, cause(), next()}
          | {:leaving_cgroup, cause() | nil, next(), Exit.t()}
          | {:announcing, cause() | nil, next(), Exit.t() | lost()}
          | {:over, cause() | nil, Exit.t() | lost()}

  @type event ::
          {:end, cause(), next()}
          | {:exited, Exit.t()}
          | {:shepherd_gone, at :: integer()}
          | :announced
          | :give_up
          | :grace_over

  @type effect ::
          :tell_end
          | :shut_control
          | {:release_control, :retire | :close}
          | :remove_cgroup
          | :announce_end
          | {:arm, :give_up | :grace_over, non_neg_integer()}
          | {:output, :discard | {:fail, term()} | :left_behind | :gone | :lingering}
          | {:give_up_pipes, {:error, term()}}
          | :see_feeder_off
          | {:answer, :exit | :stop | :collect, term()}
          | {:tell_exit, 0..255 | :shepherd_died}
          | {:stop, reason :: term()}

  # `give_up_after`: ms after the command was told to end. `grace`: for so many ms after the exit, reads wait for
  # processes that the command has left behind; `:none`: they wait as long as such a process holds the pipe.
  @enforce_keys [:os_pid]
  defstruct [
    :os_pid,
    phase: :running,
    leftovers: :kill,
    cgroup?: false,
    give_up_after: :infinity,
    grace: :none
  ]

  @type t :: %__MODULE__{
          os_pid: pos_integer(),
          phase: phase(),
          leftovers: :kill | :leave,
          cgroup?: boolean(),
          give_up_after: non_neg_integer() | :infinity,
          grace: non_neg_integer() | :none
        }

  @spec event(t(), event()) :: {t(), [effect()]}

  # --- told to end --------------------------------------------------------------------------------

  def event(%{phase: :running} = life, {:end, cause, next}) do
    {%{life | phase: {:ending, cause, next}}, [:tell_end] ++ give_up_timer(life) ++ output(cause)}
  end

  # The first cause stays. From `:stopped` and `:closed` on, output is discarded, so that a full pipe does not keep the
  # command from ending. Race: asked to stop twice.
  def event(%{phase: {:ending, cause, before}} = life, {:end, later, next})
      when later in [:stopped, :closed] do
    discard = if verdict?(cause), do: [], else: output(:stopped)
    {%{life | phase: {:ending, cause, later(before, next)}}, discard}
  end

  def event(%{phase: {:ending, cause, before}} = life, {:end, _cause, next}) do
    {%{life | phase: {:ending, cause, later(before, next)}}, []}
  end

  def event(%{phase: {:given_up, cause, before}} = life, {:end, _cause, next}) do
    {%{life | phase: {:given_up, cause, later(before, next)}},
     [{:answer, :stop, not_ended(life)}]}
  end

  # What has exited did not pass its time.
  def event(%{phase: {:leaving_cgroup, _, _, _}} = life, {:end, :timeout, _next}), do: {life, []}
  def event(%{phase: {:announcing, _, _, _}} = life, {:end, :timeout, _next}), do: {life, []}
  def event(%{phase: {:over, _, _}} = life, {:end, :timeout, _next}), do: {life, []}

  def event(%{phase: {:leaving_cgroup, cause, before, exit}} = life, {:end, _cause, next}) do
    {%{life | phase: {:leaving_cgroup, cause, later(before, next), exit}}, []}
  end

  # The owner is dead, and with it the reason to wait for handlers.
  def event(%{phase: {:announcing, cause, before, exit}} = life, {:end, :closed, next}) do
    event(%{life | phase: {:announcing, cause, later(before, next), exit}}, :announced)
  end

  def event(%{phase: {:announcing, cause, before, exit}} = life, {:end, _cause, next}) do
    {%{life | phase: {:announcing, cause, later(before, next), exit}}, []}
  end

  def event(%{phase: {:over, _, _}} = life, {:end, _cause, next}), do: {life, next(next)}

  # --- the shepherd reports -------------------------------------------------------------------------

  # When the control socket is shut, the shepherd removes the cgroup and exits. With `leftovers: :leave`, what the command
  # left stays in the cgroup, so nothing is waited for. Race: late figures.
  def event(%{cgroup?: true, leftovers: :kill, phase: phase} = life, {:exited, exit}) do
    {cause, next} = cause_and_next(phase)
    {%{life | phase: {:leaving_cgroup, cause, next, exit}}, [:shut_control]}
  end

  def event(life, {:exited, exit}), do: over(life, exit)

  def event(%{phase: {:announcing, _, _, _}} = life, {:shepherd_gone, _at}), do: {life, []}
  def event(%{phase: {:over, _, _}} = life, {:shepherd_gone, _at}), do: {life, []}

  def event(%{phase: {:leaving_cgroup, _, _, exit}} = life, {:shepherd_gone, _at}),
    do: over(life, exit)

  def event(life, {:shepherd_gone, at}), do: over(life, {:lost, at})

  # --- its end was announced ------------------------------------------------------------------------

  # Only now anybody is told. Whoever then looks at what a handler has written finds the end of this command.
  def event(%{phase: {:announcing, cause, next, exit}} = life, :announced) do
    life = %{life | phase: {:over, cause, exit}}

    {life,
     [{:answer, :exit, result(life)}, {:tell_exit, told(life)}] ++
       output_after(life, cause, exit) ++ next(next)}
  end

  # Handlers that return when nobody waits for them any more.
  def event(life, :announced), do: {life, []}

  # --- time passes ----------------------------------------------------------------------------------

  def event(%{phase: {:ending, cause, next}} = life, :give_up) do
    {%{life | phase: {:given_up, cause, next}},
     [{:give_up_pipes, not_ended(life)} | give_up_callers(life)]}
  end

  # The command has exited, but its cgroup could not be removed in time.
  def event(%{phase: {:leaving_cgroup, _, _, _}} = life, :give_up),
    do: {life, give_up_callers(life)}

  def event(life, :give_up), do: {life, []}

  def event(%{phase: {:over, _, {:lost, _}}} = life, :grace_over), do: {life, [{:output, :gone}]}
  def event(%{phase: {:over, _, _}} = life, :grace_over), do: {life, [{:output, :lingering}]}

  # --- what is asked of it --------------------------------------------------------------------------

  @doc "Whether the command may still run: it can be signalled, and told to end."
  @spec alive?(t()) :: boolean()
  def alive?(%{phase: :running}), do: true
  def alive?(%{phase: {phase, _, _}}) when phase in [:ending, :given_up], do: true
  def alive?(_life), do: false

  @doc "Whether somebody runs it to its end: a run, a capture, a stream, a pipeline."
  @spec to_its_end?(t()) :: boolean()
  def to_its_end?(life), do: life.grace != :none

  @doc "Whether it can be suspended: what is to end goes on until it has."
  @spec may_be_suspended?(t()) :: boolean()
  def may_be_suspended?(life), do: life.phase == :running

  @doc "Whether it was given up before it ended."
  @spec given_up?(t()) :: boolean()
  def given_up?(life), do: match?({:given_up, _, _}, life.phase)

  @doc "Whether the shepherd will say nothing more."
  @spec over?(t()) :: boolean()
  def over?(%{phase: {:announcing, _, _, _}}), do: true
  def over?(%{phase: {:over, _, _}}), do: true
  def over?(_life), do: false

  @doc "How it exited, once that is known."
  @spec exit(t()) :: Exit.t() | lost() | nil
  def exit(%{phase: {:announcing, _, _, exit}}), do: exit
  def exit(%{phase: {:over, _, exit}}), do: exit
  def exit(_life), do: nil

  @doc "What is told of its end, once anything may be told."
  @spec told(t()) :: 0..255 | :shepherd_died | nil
  def told(%{phase: {:over, _, {:lost, _at}}}), do: :shepherd_died
  def told(%{phase: {:over, _, exit}}), do: Exit.status(exit)
  def told(_life), do: nil

  @doc "The answer to `await_exit`, or `nil` when the caller has to wait."
  @spec result(t()) :: {:ok, 0..255} | {:error, term()} | nil
  def result(%{phase: {:over, _, {:lost, _at}}}), do: {:error, :shepherd_died}
  # The others return the verdict by themselves.
  def result(%{phase: {:over, :closed, _}, grace: :none}), do: {:error, :closed}
  def result(%{phase: {:over, _, exit}}), do: {:ok, Exit.status(exit)}
  def result(%{phase: {:given_up, _, _}} = life), do: not_ended(life)
  def result(_life), do: nil

  @doc "Why NetRunner ended the command, if it did."
  @spec cause(t()) :: cause() | nil
  def cause(%{phase: :running}), do: nil
  def cause(%{phase: phase}), do: elem(phase, 1)

  @doc "The reason for which NetRunner ended the command, if callers get it instead of the output."
  @spec verdict(t()) :: {:error, term()} | nil
  def verdict(life) do
    case cause(life) do
      nil -> nil
      cause -> if verdict?(cause), do: error(cause)
    end
  end

  @doc "A verdict, as its callers get it."
  @spec error(cause()) :: {:error, term()}
  def error({:read_failed, reason}), do: {:error, reason}
  def error(cause), do: {:error, cause}

  # --- in common ------------------------------------------------------------------------------------

  defp over(%{phase: phase} = life, exit) do
    {cause, next} = cause_and_next(phase)

    {%{life | phase: {:announcing, cause, next, exit}},
     [{:release_control, release(life, exit)}] ++
       if(life.cgroup?, do: [:remove_cgroup], else: []) ++ [:announce_end]}
  end

  # A shepherd that has nothing more to do can serve the next command.
  defp release(%{leftovers: :kill, cgroup?: false}, %Exit{}), do: :retire
  defp release(_life, _exit), do: :close

  # Who may still write? With `leftovers: :kill`, nobody. What stays of a command that NetRunner ended is not waited for.
  defp output_after(%{leftovers: :kill}, _cause, %Exit{}), do: [{:output, :gone}]
  defp output_after(_life, cause, _exit) when cause != nil, do: [{:output, :gone}]

  defp output_after(%{leftovers: :leave, grace: grace}, nil, %Exit{}) when grace != :none do
    [{:arm, :grace_over, grace}, {:output, :left_behind}]
  end

  # The helpers above kill all that was below it; a process of somebody else that has the pipe is not waited for.
  defp output_after(_life, nil, {:lost, _at}) do
    [{:arm, :grace_over, @death_of_the_lost}, {:output, :left_behind}]
  end

  defp output_after(_life, nil, %Exit{}), do: [{:output, :left_behind}]

  defp next(:stay), do: []
  defp next({:stop, _reason} = stop), do: [stop]

  # The first who wanted the server to stop gave the reason.
  defp later(:stay, next), do: next
  defp later(stop, _next), do: stop

  defp cause_and_next(:running), do: {nil, :stay}
  defp cause_and_next({:leaving_cgroup, cause, next, _exit}), do: {cause, next}
  defp cause_and_next({_phase, cause, next}), do: {cause, next}

  defp give_up_timer(%{give_up_after: :infinity}), do: []
  defp give_up_timer(%{give_up_after: ms}), do: [{:arm, :give_up, ms}]

  # Who has run the command waits for the feeder, too.
  defp give_up_callers(life) do
    [:see_feeder_off] ++
      for(who <- [:exit, :stop, :collect], do: {:answer, who, not_ended(life)})
  end

  defp output(:asked), do: []
  defp output({:asked, _why}), do: []
  defp output(:stopped), do: [{:output, :discard}]
  defp output(verdict), do: [{:output, {:fail, error(verdict)}}]

  defp verdict?({:asked, _why}), do: false
  defp verdict?(cause), do: cause not in [:asked, :stopped]

  defp not_ended(life), do: {:error, {:not_ended, life.os_pid}}
end
