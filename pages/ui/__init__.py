"""What pages share: resources, links, pickers, charts. The only bridge between Streamlit and the core."""
