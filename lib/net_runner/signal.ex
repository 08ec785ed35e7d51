defmodule NetRunner.Signal do
  @moduledoc """
  Names and numbers of signals, as `signal(7)` has them for this system.

      iex> NetRunner.Signal.resolve(:sigterm)
      {:ok, 15}
      iex> NetRunner.Signal.name(9)
      {:ok, :sigkill}

  A name is a lower-case atom that begins with `sig`. All signals of POSIX have one, and those that this system has in addition.
  `resolve/1` turns names into numbers, and `name/1` numbers into names.

  ## Platforms

  Write names in a program, because the numbers differ between systems (`:sigusr1` is 10 on Linux and 30 on macOS). Only Linux has
  `:sigstkflt`, `:sigpwr` and the synonyms `:sigpoll` (`:sigio`) and `:sigcld` (`:sigchld`). Only the BSDs and macOS have `:sigemt` and
  `:siginfo`. `:sigiot` is `:sigabrt` everywhere. The numbers for Linux are those of x86, ARM, RISC-V and most other processors.

  ## Real-time signals

  They have the names that `kill -l` of a shell shows: `:sigrtmin`, `:"sigrtmin+1"`, … `:"sigrtmax-1"`, `:sigrtmax`. `name/1` counts from
  the nearer end; `resolve/1` understands both.

      iex> NetRunner.Signal.resolve(:sigrtmin)
      {:ok, 34}
      iex> NetRunner.Signal.name(35)
      {:ok, :"sigrtmin+1"}
      iex> NetRunner.Signal.resolve(:"sigrtmax-29")
      {:ok, 35}

  On Linux their numbers are 34 to 64. The kernel's own range begins at 32, but the C library needs 32 and 33 for its threads (nptl(7)).
  musl needs 34 as well, so the `SIGRTMIN` of a program that is linked with musl is 35. macOS has no real-time signals; the numbers
  there are those of FreeBSD.
  """
  @moduledoc since: "0.1.0"

  @typedoc "A name such as `:sigterm`, or a number."
  @type t :: atom() | pos_integer()

  @linux [
    sighup: 1,
    sigint: 2,
    sigquit: 3,
    sigill: 4,
    sigtrap: 5,
    sigabrt: 6,
    sigbus: 7,
    sigfpe: 8,
    sigkill: 9,
    sigusr1: 10,
    sigsegv: 11,
    sigusr2: 12,
    sigpipe: 13,
    sigalrm: 14,
    sigterm: 15,
    sigstkflt: 16,
    sigchld: 17,
    sigcont: 18,
    sigstop: 19,
    sigtstp: 20,
    sigttin: 21,
    sigttou: 22,
    sigurg: 23,
    sigxcpu: 24,
    sigxfsz: 25,
    sigvtalrm: 26,
    sigprof: 27,
    sigwinch: 28,
    sigio: 29,
    sigpwr: 30,
    sigsys: 31
  ]

  # signal(3) of the BSDs, of which macOS is one.
  @bsd [
    sighup: 1,
    sigint: 2,
    sigquit: 3,
    sigill: 4,
    sigtrap: 5,
    sigabrt: 6,
    sigemt: 7,
    sigfpe: 8,
    sigkill: 9,
    sigbus: 10,
    sigsegv: 11,
    sigsys: 12,
    sigpipe: 13,
    sigalrm: 14,
    sigterm: 15,
    sigurg: 16,
    sigstop: 17,
    sigtstp: 18,
    sigcont: 19,
    sigchld: 20,
    sigttin: 21,
    sigttou: 22,
    sigio: 23,
    sigxcpu: 24,
    sigxfsz: 25,
    sigvtalrm: 26,
    sigprof: 27,
    sigwinch: 28,
    siginfo: 29,
    sigusr1: 30,
    sigusr2: 31
  ]

  @signals Map.get(%{{:unix, :linux} => @linux}, :os.type(), @bsd)
  @synonyms if :os.type() == {:unix, :linux},
              do: [sigiot: :sigabrt, sigpoll: :sigio, sigcld: :sigchld],
              else: [sigiot: :sigabrt]

  @real_time if :os.type() == {:unix, :linux}, do: 34..64, else: 65..126

  @real_time_names (for number <- @real_time do
                      {number - @real_time.first, @real_time.last - number, number}
                    end)

  # What `name/1` says is the name from the nearer end; in the middle, from the lower one.
  @from_min for {above, below, number} <- @real_time_names,
                do:
                  {if(above == 0, do: :sigrtmin, else: :"sigrtmin+#{above}"), number,
                   above <= below}
  @from_max for {above, below, number} <- @real_time_names,
                do:
                  {if(below == 0, do: :sigrtmax, else: :"sigrtmax-#{below}"), number,
                   above > below}

  @doc """
  Returns the number of a signal that is given by name or number.

      iex> NetRunner.Signal.resolve(:sigint)
      {:ok, 2}
      iex> NetRunner.Signal.resolve(:sigrtmax)
      {:ok, 64}
      iex> NetRunner.Signal.resolve(40)
      {:ok, 40}
      iex> NetRunner.Signal.resolve(:sigwhat)
      {:error, :unknown_signal}
  """
  @spec resolve(t()) :: {:ok, pos_integer()} | {:error, :unknown_signal}
  def resolve(signal)

  for {name, number} <- @signals do
    def resolve(unquote(name)), do: {:ok, unquote(number)}
  end

  for {synonym, name} <- @synonyms do
    def resolve(unquote(synonym)), do: resolve(unquote(name))
  end

  for {name, number, _} <- @from_min ++ @from_max do
    def resolve(unquote(name)), do: {:ok, unquote(number)}
  end

  def resolve(number) when number in 1..31 or number in @real_time, do: {:ok, number}
  def resolve(_), do: {:error, :unknown_signal}

  @doc """
  Like `resolve/1`, but raises `ArgumentError` if there is no such signal.

      iex> NetRunner.Signal.resolve!(:sigkill)
      9
  """
  @spec resolve!(t()) :: pos_integer()
  def resolve!(signal) do
    case resolve(signal) do
      {:ok, number} ->
        number

      {:error, :unknown_signal} ->
        raise ArgumentError,
              "#{inspect(signal)} is not a signal: give a name such as :sigterm or a number " <>
                "from 1 to 31 or #{inspect(@real_time)}"
    end
  end

  @doc """
  Returns the name of the signal with this number.

      iex> NetRunner.Signal.name(15)
      {:ok, :sigterm}
      iex> NetRunner.Signal.name(40)
      {:ok, :"sigrtmin+6"}
      iex> NetRunner.Signal.name(32)
      {:error, :unknown_signal}
  """
  @spec name(integer()) :: {:ok, atom()} | {:error, :unknown_signal}
  def name(number)

  for {name, number} <- @signals do
    def name(unquote(number)), do: {:ok, unquote(name)}
  end

  for {name, number, true} <- @from_min ++ @from_max do
    def name(unquote(number)), do: {:ok, unquote(name)}
  end

  def name(_), do: {:error, :unknown_signal}
end
