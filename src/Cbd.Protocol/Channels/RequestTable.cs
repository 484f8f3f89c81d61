using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <summary>One request of a user on its way through a queue.</summary>
internal struct Request
{
    public ulong Cookie;
    public BlockOperation Operation;
    public BlockFlags Flags;
    public long Offset;
    public long Length;
    public BufferSlice Data;

    /// <summary>Bytes of the range that commands were issued for.</summary>
    public long Issued;

    /// <summary>Every command of it was issued.</summary>
    public bool IsIssued;
    public int InFlight;
    public int Error;
    public int Result;
    public bool Active;
    public bool Answered;
}

/// <summary>
/// The requests of one queue: those that wait for credits or space in the order in which they came, and those whose
/// answers wait to be taken. Fixed size; allocates nothing after construction.
/// </summary>
internal sealed class RequestTable
{
    private readonly Request[] _table;
    private readonly IndexRing _free;
    private readonly IndexRing _waiting;
    private readonly IndexRing _answers;

    public RequestTable(int capacity)
    {
        _table = new Request[capacity];
        _free = new IndexRing(capacity);
        _waiting = new IndexRing(capacity);
        _answers = new IndexRing(capacity);
        for (int i = 0; i < capacity; i++)
            _free.Add(i);
    }

    public int Count => _table.Length - _free.Count;

    public int Capacity => _table.Length;

    public bool HasAnswers => _answers.Count > 0;

    public bool HasWaiting => _waiting.Count > 0;

    public int WaitingCount => _waiting.Count;

    /// <summary>The request that was added last, while it waits.</summary>
    public int NewestWaiting => _waiting.Last;

    /// <summary>The request that is issued next.</summary>
    public int FirstWaiting => _waiting.First;

    public ref Request this[int index] => ref _table[index];

    /// <summary>See <see cref="Queue{TMemory, TPolicy}.KeptBuffer"/>.</summary>
    public NativeBuffer? KeptBuffer { get; set; }

    /// <summary>Takes a request, answered at once if <paramref name="error"/> is not 0; false if the table is full.</summary>
    public bool TryAdd(in BlockRequest request, int error)
    {
        if (_free.Count == 0)
            return false;
        // Until its completion is taken its payload is there, whatever the user disposes.
        BufferSlice data = error == 0 ? request.Data : default;
        if (data.Buffer is { } buffer && !ReferenceEquals(buffer, KeptBuffer) && !buffer.TryAddReference())
            (data, error) = (default, Errno.EFAULT);
        int index = _free.Take();
        ref Request added = ref _table[index];
        added.Cookie = request.Cookie;
        added.Operation = request.Operation;
        added.Flags = request.Flags;
        added.Offset = request.Offset;
        added.Length = request.Length;
        added.Data = data;
        added.Issued = 0;
        added.IsIssued = false;
        added.InFlight = 0;
        added.Error = error;
        added.Result = 0;
        added.Active = true;
        added.Answered = false;
        if (error != 0)
            Answer(index);
        else
            _waiting.Add(index);
        return true;
    }

    /// <summary>All commands of the first waiting request were issued, or no more of them will be.</summary>
    public void StopIssuing(int index)
    {
        if (_waiting.Take() != index)
            throw new InvalidOperationException("only the first waiting request can be issued in part");
    }

    public void Answer(int index)
    {
        ref Request request = ref _table[index];
        if (!request.Active || request.Answered)
            throw new InvalidOperationException("a request was answered twice");
        request.Answered = true;
        _answers.Add(index);
    }

    /// <summary>Answers everything that is not answered yet with an error.</summary>
    public void AnswerAll(int error)
    {
        _waiting.Clear();
        for (int i = 0; i < _table.Length; i++)
        {
            ref Request request = ref _table[i];
            if (!request.Active || request.Answered)
                continue;
            request.Error = error;
            Answer(i);
        }
    }

    public int TakeAnswers(Span<BlockCompletion> completions)
    {
        int count = 0;
        while (count < completions.Length && _answers.Count > 0)
        {
            int index = _answers.Take();
            ref Request request = ref _table[index];
            completions[count++] = new BlockCompletion(request.Cookie, request.Error, request.Error == 0 ? request.Result : 0);
            request.Active = false;
            if (request.Data.Buffer is { } buffer && !ReferenceEquals(buffer, KeptBuffer))
                buffer.ReleaseReference();
            request.Data = default;
            _free.Add(index);
        }

        return count;
    }

    /// <summary>A first-in first-out list of at most <c>capacity</c> small numbers.</summary>
    private sealed class IndexRing(int capacity)
    {
        private readonly int[] _items = new int[capacity];
        private int _head;

        public int Count { get; private set; }

        public int First => Count > 0 ? _items[_head] : throw new InvalidOperationException("the list is empty");

        public int Last => Count > 0 ? _items[(_head + Count - 1) % _items.Length] : throw new InvalidOperationException("the list is empty");

        public void Add(int item)
        {
            if (Count == _items.Length)
                throw new InvalidOperationException("the list is full");
            int tail = _head + Count;
            _items[tail >= _items.Length ? tail - _items.Length : tail] = item;
            Count++;
        }

        public int Take()
        {
            int item = First;
            _head = _head + 1 == _items.Length ? 0 : _head + 1;
            Count--;
            return item;
        }

        public void Clear() => Count = 0;
    }
}
