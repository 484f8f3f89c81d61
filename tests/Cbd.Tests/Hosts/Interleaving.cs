using Cbd.Simulation;
using Cbd.Tests.Transports;

namespace Cbd.Tests.Hosts;

/// <summary>
/// Runs several hosts, each in its own flow, one memory access at a time: before every access a seeded choice says who
/// goes on. The seed replays the run.
/// </summary>
internal sealed class Interleaving : IDisposable
{
    private readonly Random _random;
    private readonly List<Flow> _flows = [];
    private readonly SemaphoreSlim _ended = new(0);
    private readonly int _switchPercent;
    private readonly List<Exception> _failures = [];

    public Interleaving(int seed)
    {
        _random = new Random(seed);
        _switchPercent = _random.Next(2, 50);
    }

    /// <summary>Called before every access, with nobody running.</summary>
    public Action? OnAccess { get; set; }

    /// <summary>The seeded source of all choices of the run.</summary>
    public Random Random => _random;

    /// <summary>Adds a host's flow; its hook is what its memory must call.</summary>
    public void Add(Action<Flow> body) => _flows.Add(new Flow(this, body));

    /// <summary>Runs all flows to their end; throws the first failure of any.</summary>
    public void Run()
    {
        foreach (Flow flow in _flows)
            flow.Start();
        Next(null);
        _ended.Wait();
        foreach (Flow flow in _flows)
            flow.Join();
        if (_failures.Count != 0)
            throw new InvalidOperationException(_failures[0].Message, _failures[0]);
    }

    public void Dispose()
    {
        foreach (Flow flow in _flows)
            flow.Dispose();
        _ended.Dispose();
    }

    /// <summary>Hands the turn to one live flow; returns the one that has it now.</summary>
    private Flow? Choose(Flow? current)
    {
        if (current is { IsOver: false } && _random.Next(100) >= _switchPercent)
            return current;
        List<Flow> live = _flows.FindAll(flow => !flow.IsOver);
        return live.Count == 0 ? null : live[_random.Next(live.Count)];
    }

    private void Next(Flow? current)
    {
        Flow? next = Choose(current);
        if (next is null)
            _ended.Release();
        else if (next != current)
            next.Resume();
    }

    /// <summary>One host's flow.</summary>
    internal sealed class Flow(Interleaving owner, Action<Flow> body) : IDisposable
    {
        private readonly SemaphoreSlim _turn = new(0);
        private Thread? _thread;
        private int _crashAfter = -1;

        public bool IsOver { get; private set; }

        /// <summary>Kills the flow at one of its next accesses.</summary>
        public void CrashWithin(int accesses) => _crashAfter = owner.Random.Next(accesses);

        public void Hook(MemoryAccess access)
        {
            // The test looks at the outcome through the same memory.
            if (IsOver)
                return;
            owner.OnAccess?.Invoke();
            Flow? next = owner.Choose(this);
            if (next != this)
            {
                next!.Resume();
                _turn.Wait();
            }

            if (_crashAfter >= 0 && _crashAfter-- == 0)
                throw new CrashException();
        }

        public void Start()
        {
            _thread = new Thread(() =>
            {
                _turn.Wait();
                try
                {
                    body(this);
                }
#pragma warning disable CA1031 // The run hands it on to the test.
                catch (Exception failure)
#pragma warning restore CA1031
                {
                    owner._failures.Add(failure);
                }

                IsOver = true;
                owner.Next(this);
            });
            _thread.Start();
        }

        public void Resume() => _turn.Release();

        public void Join() => _thread!.Join();

        public void Dispose() => _turn.Dispose();
    }
}
